//! As much of JSON Schema as the OpenAPI document uses. A word that it does not know is a failure, so that nothing is
//! silently not checked.

use serde_json::Value;

/// The schemas of a document.
pub struct Schemas<'a>(&'a Value);

/// Words that describe and do not constrain.
const WORDS_FOR_PEOPLE: [&str; 4] = ["description", "format", "default", "title"];

impl<'a> Schemas<'a> {
    pub fn new(document: &'a Value) -> Self {
        Self(document)
    }

    /// # Panics
    /// `value` is not what `schema` allows; `place` says where.
    pub fn check(&self, schema: &Value, value: &Value, place: &str) {
        if let Err(wrong) = self.fits(schema, value) {
            panic!("{place}: {wrong}");
        }
    }

    fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let Some(words) = schema.as_object() else {
            return Err(format!("no schema: {schema}"));
        };
        for (word, wanted) in words {
            match word.as_str() {
                "$ref" => self.fits(self.resolve(wanted), value)?,
                "type" => has_type(wanted, value)?,
                "enum" => {
                    let allowed = wanted
                        .as_array()
                        .is_some_and(|allowed| allowed.contains(value));
                    if !allowed {
                        return Err(format!("{value} is none of {wanted}"));
                    }
                }
                "required" => {
                    for key in wanted.as_array().into_iter().flatten() {
                        if value.get(key.as_str().unwrap_or_default()).is_none() {
                            return Err(format!("{key} is missing"));
                        }
                    }
                }
                "properties" => self.properties(schema, wanted, value)?,
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.fits(wanted, item)
                            .map_err(|wrong| format!("[{index}]: {wrong}"))?;
                    }
                }
                "oneOf" => {
                    let mut choices = wanted.as_array().into_iter().flatten();
                    if !choices.any(|choice| self.fits(choice, value).is_ok()) {
                        return Err(format!("{value} is none of {wanted}"));
                    }
                }
                "minimum" => {
                    if value.as_f64() < wanted.as_f64() {
                        return Err(format!("{value} is below {wanted}"));
                    }
                }
                "additionalProperties" | "propertyNames" | "maximum" => {}
                word if WORDS_FOR_PEOPLE.contains(&word) => {}
                word => return Err(format!("this test does not know `{word}`")),
            }
        }
        Ok(())
    }

    /// What is not in the document must not be in an answer either.
    fn properties(&self, schema: &Value, wanted: &Value, value: &Value) -> Result<(), String> {
        for (key, inner) in value.as_object().into_iter().flatten() {
            match wanted.get(key) {
                Some(schema) => self
                    .fits(schema, inner)
                    .map_err(|wrong| format!("{key}: {wrong}"))?,
                None if schema
                    .get("additionalProperties")
                    .is_some_and(Value::is_object) => {}
                None => return Err(format!("{key} is not in the document")),
            }
        }
        Ok(())
    }

    fn resolve(&self, reference: &Value) -> &Value {
        let path = reference.as_str().and_then(|text| text.strip_prefix('#'));
        path.and_then(|path| self.0.pointer(path))
            .unwrap_or_else(|| panic!("{reference} is not in the document"))
    }
}

fn has_type(wanted: &Value, value: &Value) -> Result<(), String> {
    let is = |name: &Value| match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        _ => false,
    };
    let fits = match wanted {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    };
    fits.then_some(())
        .ok_or_else(|| format!("{value} is no {wanted}"))
}
