//! `design:NAME[+POLICY][-FLAVOUR]`: a kernel of our own designs as the user names it, and the boot parameters that make it so.

use std::fmt;

use super::KernelError;
use super::catalogue::Catalogue;
use super::files::KernelFiles;
use crate::error::Error;

/// A design with a policy and a flavour, all of which exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesignChoice {
    /// As the user spelled it, less `design:`.
    text: String,
    /// The design.
    pub design: String,
    /// The policy; the catalogue's first where none was named.
    pub policy: String,
    /// The flavour; the catalogue's first where none was named.
    pub flavour: String,
}

impl DesignChoice {
    /// Understands what stands behind `design:`.
    ///
    /// # Errors
    /// A name is unknown, or source.toml cannot be read.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let catalogue = Catalogue::read(&KernelFiles::of(None))?;
        Ok(Self::of(text, &catalogue)?)
    }

    /// Whether what stands behind `design:` is known to what is embedded in the program.
    pub(crate) fn is_of_this_program(text: &str) -> bool {
        let catalogue = Catalogue::read(&KernelFiles::Embedded);
        catalogue.is_ok_and(|catalogue| Self::of(text, &catalogue).is_ok())
    }

    #[cfg(test)]
    pub(super) fn for_test(design: &str, policy: &str) -> Self {
        Self {
            text: format!("{design}+{policy}"),
            design: design.to_owned(),
            policy: policy.to_owned(),
            flavour: "guest".to_owned(),
        }
    }

    fn of(text: &str, catalogue: &Catalogue) -> Result<Self, KernelError> {
        let (names, flavour) = match text.split_once('-') {
            Some((names, flavour)) => (names, catalogue.flavour(flavour)?),
            None => (text, &catalogue.flavours[0]),
        };
        let known = catalogue.design_in(names).map(str::len);
        let len = known.unwrap_or_else(|| names.find('+').unwrap_or(names.len()));
        let (design, policy) = names.split_at(len);
        let design = catalogue.design(design)?;
        let policy = match policy.strip_prefix('+') {
            Some(policy) => catalogue.policy(policy)?,
            None => &catalogue.policies[0],
        };
        Ok(Self {
            text: text.to_owned(),
            design: design.name.clone(),
            policy: policy.to_owned(),
            flavour: flavour.name.clone(),
        })
    }

    /// The words for the kernel's command line.
    #[must_use]
    pub fn parameters(&self) -> String {
        format!("pin_tracking={} pin_policy={}", self.design, self.policy)
    }
}

impl fmt::Display for DesignChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "design:{}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::tests::catalogue;
    use super::*;

    #[test]
    fn design_policy_and_flavour_are_told_apart_though_a_design_has_a_plus_in_its_name() {
        for (text, design, policy, flavour) in [
            ("bias", "bias", "none", "guest"),
            ("bias+bounce", "bias", "bounce", "guest"),
            ("flag+ext", "flag+ext", "none", "guest"),
            ("flag+ext+bounce", "flag+ext", "bounce", "guest"),
            ("field+none-debug", "field", "none", "debug"),
            ("bias-debug", "bias", "none", "debug"),
        ] {
            let choice = DesignChoice::of(text, &catalogue()).unwrap();
            let told = (
                choice.design.as_str(),
                choice.policy.as_str(),
                choice.flavour.as_str(),
            );
            assert_eq!(told, (design, policy, flavour), "{text}");
            assert_eq!(choice.to_string(), format!("design:{text}"));
            assert_eq!(
                choice.parameters(),
                format!("pin_tracking={design} pin_policy={policy}")
            );
        }
    }

    #[test]
    fn what_is_unknown_is_told_as_what_it_was_meant_for() {
        for (text, told) in [
            ("bais+bounce", "no design `bais`; did you mean `bias`?"),
            ("", "no design ``"),
            ("flag", "no design `flag`; did you mean `flag+ext`?"),
            ("bias+bonce", "no policy `bonce`; did you mean `bounce`?"),
            ("bias+", "no policy ``"),
            ("bias-guset", "no flavour `guset`; did you mean `guest`?"),
        ] {
            let refusal = DesignChoice::of(text, &catalogue())
                .unwrap_err()
                .to_string();
            assert!(refusal.contains(told), "{text}: {refusal}");
        }
    }
}
