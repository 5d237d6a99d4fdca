//! Reads a patch as `git format-patch` writes it: a message, then unified differences of any number of files.
//!
//! Promises: line counts are those of the hunks' headers, so a message that looks like a difference and the signature at the end are
//! no trouble. Does not know renames, copies, binary differences and changes of permissions: they are refused.

use super::KernelError;

/// A patch that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Patch {
    /// Its file's name.
    pub(super) name: String,
    pub(super) files: Vec<FilePatch>,
}

/// What it does to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilePatch {
    /// Path below the source's top.
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) hunks: Vec<Hunk>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Change,
    Create { executable: bool },
    Delete,
}

/// A run of lines that are replaced by others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hunk {
    /// Where it is in the patch, from 1.
    pub(super) line: usize,
    /// Where it begins in the file before, from 1; 0 in an empty file.
    pub(super) start: usize,
    /// Lines of the file before, with their ends.
    pub(super) old: Vec<String>,
    /// Lines of the file after.
    pub(super) new: Vec<String>,
}

impl Patch {
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, KernelError> {
        let mut reader = Reader {
            name,
            lines: text.lines().collect(),
            at: 0,
        };
        let mut files = Vec::new();
        while reader.at < reader.lines.len() {
            if reader.begins_file() {
                files.push(reader.file()?);
            } else {
                reader.at += 1;
            }
        }
        if files.is_empty() {
            return Err(reader.bad("there is no difference in it"));
        }
        Ok(Self {
            name: name.to_owned(),
            files,
        })
    }

    /// What it does, without its message and name: what a build depends on.
    pub(super) fn essence(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            text.push_str(&format!("{} {:?}\n", file.path, file.kind));
            for hunk in &file.hunks {
                text.push_str(&format!(
                    "@@ {} {} {}\n",
                    hunk.start,
                    hunk.old.len(),
                    hunk.new.len()
                ));
                text.extend(hunk.old.iter().chain(&hunk.new).map(String::as_str));
            }
        }
        text
    }
}

struct Reader<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn bad(&self, why: impl Into<String>) -> KernelError {
        KernelError::BadPatch {
            patch: self.name.to_owned(),
            line: self.at + 1,
            why: why.into(),
        }
    }

    fn line(&self, ahead: usize) -> &'a str {
        self.lines.get(self.at + ahead).copied().unwrap_or_default()
    }

    /// `diff --git`, or the two names of a plain difference. A message may have a line `--- ` too.
    fn begins_file(&self) -> bool {
        self.line(0).starts_with("diff --git ")
            || (self.line(0).starts_with("--- ")
                && self.line(1).starts_with("+++ ")
                && self.line(2).starts_with("@@ -"))
    }

    fn file(&mut self) -> Result<FilePatch, KernelError> {
        let mut executable = false;
        while !self.line(0).starts_with("--- ") {
            let line = self.line(0);
            for refused in [
                "rename ",
                "copy ",
                "old mode",
                "new mode",
                "similarity ",
                "GIT binary patch",
                "Binary files",
            ] {
                if line.starts_with(refused) {
                    return Err(self.bad(format!(
                        "`{line}` is not supported: only text that is added, changed or deleted"
                    )));
                }
            }
            executable |= line == "new file mode 100755";
            self.at += 1;
            if self.at >= self.lines.len() || self.line(0).starts_with("diff --git ") {
                return Err(self.bad("a difference without lines"));
            }
        }
        let (old, new) = (self.file_name("--- ")?, self.file_name("+++ ")?);
        let (path, kind) = match (old, new) {
            (Some(_), Some(new)) => (new, Kind::Change),
            (None, Some(new)) => (new, Kind::Create { executable }),
            (Some(old), None) => (old, Kind::Delete),
            (None, None) => return Err(self.bad("a difference from nothing to nothing")),
        };
        let mut hunks = Vec::new();
        while self.line(0).starts_with("@@ -") {
            hunks.push(self.hunk()?);
        }
        if self.is_of_hunk() {
            return Err(self.bad("the hunk has more lines than its header counts"));
        }
        if hunks.is_empty() {
            return Err(self.bad("expected `@@ -LINE,COUNT +LINE,COUNT @@`"));
        }
        Ok(FilePatch { path, kind, hunks })
    }

    /// Whether the line looks as if the hunk before it went on: not the next file, and not the signature that mail ends with.
    fn is_of_hunk(&self) -> bool {
        let line = self.line(0);
        let is_removed =
            line.starts_with('-') && !line.starts_with("--- ") && line.trim_end() != "--";
        line.starts_with([' ', '+']) || is_removed
    }

    /// `--- a/mm/gup.c`: the path, or nothing for /dev/null.
    fn file_name(&mut self, mark: &str) -> Result<Option<String>, KernelError> {
        let line = self.line(0);
        let name = line
            .strip_prefix(mark)
            .ok_or_else(|| self.bad(format!("expected `{mark}FILE`")))?;
        // Behind a tab there may be a time.
        let name = name.split('\t').next().unwrap_or_default();
        if name == "/dev/null" {
            self.at += 1;
            return Ok(None);
        }
        let path = name
            .split_once('/')
            .map(|(_, path)| path)
            .unwrap_or_default();
        let is_plain =
            !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !is_plain {
            return Err(self.bad(format!(
                "`{name}` is no path of the kernel's source with a/ or b/ before it"
            )));
        }
        self.at += 1;
        Ok(Some(path.to_owned()))
    }

    fn hunk(&mut self) -> Result<Hunk, KernelError> {
        let header = header(self.line(0))
            .ok_or_else(|| self.bad("expected `@@ -LINE,COUNT +LINE,COUNT @@`"))?;
        let mut hunk = Hunk {
            line: self.at + 1,
            start: header.start,
            old: Vec::new(),
            new: Vec::new(),
        };
        self.at += 1;
        while hunk.old.len() < header.old || hunk.new.len() < header.new {
            let Some(line) = self.lines.get(self.at) else {
                return Err(self.bad("the patch ends within a hunk"));
            };
            // Mail programs take the only space off an empty line.
            let (mark, text) = line.split_at_checked(1).unwrap_or((" ", ""));
            let mut ended = format!("{text}\n");
            if self.line(1).starts_with("\\ ") {
                ended.pop();
            }
            match mark {
                " " => {
                    hunk.old.push(ended.clone());
                    hunk.new.push(ended);
                }
                "-" => hunk.old.push(ended),
                "+" => hunk.new.push(ended),
                _ => return Err(self.bad("a line of a hunk begins with ` `, `-` or `+`")),
            }
            self.at += 1;
            if self.line(0).starts_with("\\ ") {
                self.at += 1;
            }
        }
        if hunk.old.len() > header.old || hunk.new.len() > header.new {
            return Err(self.bad("the hunk has other lines than its header counts"));
        }
        Ok(hunk)
    }
}

struct Header {
    start: usize,
    old: usize,
    new: usize,
}

/// `@@ -12,3 +12,4 @@ whatever`; a count of 1 may be left out.
fn header(line: &str) -> Option<Header> {
    let (ranges, _) = line.strip_prefix("@@ -")?.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let range = |text: &str| {
        let (start, count) = text.split_once(',').unwrap_or((text, "1"));
        Some((start.parse::<usize>().ok()?, count.parse::<usize>().ok()?))
    };
    let ((start, old), (_, new)) = (range(old)?, range(new)?);
    Some(Header { start, old, new })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &str = "From 1 Mon Sep 17 00:00:00 2001\nSubject: [PATCH] mm: x\n\n--- is a line of the message\n---\n mm/a.c | 2 +-\n\n\
        diff --git a/mm/a.c b/mm/a.c\nindex 1..2 100644\n--- a/mm/a.c\n+++ b/mm/a.c\n@@ -3,3 +3,3 @@ int f(void)\n one\n-two\n+zwei\n\n\
        diff --git a/mm/new.h b/mm/new.h\nnew file mode 100755\nindex 0..3\n--- /dev/null\n+++ b/mm/new.h\n@@ -0,0 +1 @@\n+x\n\
        \\ No newline at end of file\n-- \n2.39.5\n";

    #[test]
    fn a_mail_is_read_by_its_counts_with_message_and_signature_left_out() {
        let patch = Patch::parse("p", MAIL).unwrap();
        let [changed, created] = patch.files.as_slice() else {
            panic!("{patch:?}");
        };
        assert_eq!(
            (changed.path.as_str(), changed.kind),
            ("mm/a.c", Kind::Change)
        );
        assert_eq!(changed.hunks[0].old, ["one\n", "two\n", "\n"]);
        assert_eq!(changed.hunks[0].new, ["one\n", "zwei\n", "\n"]);
        assert_eq!((changed.hunks[0].line, changed.hunks[0].start), (12, 3));
        assert_eq!(created.kind, Kind::Create { executable: true });
        assert_eq!(created.hunks[0].new, ["x"], "no newline at its end");
    }

    #[test]
    fn another_message_is_the_same_patch_and_another_line_is_not() {
        let essence = |text: &str| Patch::parse("p", text).unwrap().essence();
        assert_eq!(essence(MAIL), essence(&MAIL.replace("mm: x", "mm: y")));
        assert_ne!(essence(MAIL), essence(&MAIL.replace("zwei", "deux")));
        assert_ne!(essence(MAIL), essence(&MAIL.replace("100755", "100644")));
    }

    #[test]
    fn what_is_no_patch_is_told_with_its_line() {
        for (from, to, line, told) in [
            (
                "index 1..2 100644",
                "rename from mm/b.c",
                9,
                "`rename from mm/b.c` is not supported",
            ),
            (
                "+++ b/mm/a.c",
                "+++ b/../a.c",
                11,
                "is no path of the kernel's source",
            ),
            ("-3,3 +3,3", "-3,9 +3,3", 17, "begins with ` `, `-` or `+`"),
            (
                "-3,3 +3,3",
                "-3,1 +3,1",
                14,
                "more lines than its header counts",
            ),
            ("@@ -3,3 +3,3 @@ int", "@@ 3 @@ int", 12, "expected `@@"),
            ("+zwei", "*zwei", 15, "begins with ` `"),
        ] {
            let error = Patch::parse("p", &MAIL.replacen(from, to, 1))
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with(&format!("p:{line}: ")) && error.contains(told),
                "{error}"
            );
        }
        assert!(
            Patch::parse("p", "only words\n")
                .unwrap_err()
                .to_string()
                .contains("no difference")
        );
    }

    #[test]
    fn a_patch_cut_within_a_hunk_is_an_error() {
        let end = MAIL.find("-two").unwrap();
        let error = Patch::parse("p", &MAIL[..end]).unwrap_err().to_string();
        assert!(error.contains("ends within a hunk"), "{error}");
    }
}
