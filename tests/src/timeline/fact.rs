//! Facts: what the scenario knows and the devices do not. `docs/oracles.md` is their reference.

use serde::Deserialize;
use serde_json::Value;

use super::kernel_trace::KernelTrace;
use crate::verdict::Promise;

/// One fact, by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant's type says it")]
pub enum Fact {
    FilePage(FilePage),
    /// These frames belong to their file no more.
    FilePageGone(Vec<u64>),
    /// From here to the next boot all that is written to this device comes out of the page cache or is the file system's own.
    WrittenByCache(String),
    /// Pages under write-back to this device must not change.
    StablePagesRequired(String),
    FileBlocks(FileBlocks),
    Promised(Promised),
    Found(Found),
    Image(Image),
    Fsck(Fsck),
    Pins(Pins),
    ExpectedStop(ExpectedStop),
    DiskName(DiskName),
    StepFailed(StepFailed),
    PowerCut(PowerCut),
    CrashImage(CrashImage),
    NotApplicable(NotApplicable),
    MustHold(MustHold),
    Looked(Looked),
    Frozen(Frozen),
    KernelTrace(KernelTrace),
    /// A key that no oracle knows: for people and pictures.
    Other(String),
}

/// `file-page`: frames that are pages of a file's page cache.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FilePage {
    /// Where the file system lives.
    pub device: String,
    /// The file's path.
    pub file: String,
    /// Guest frame numbers; 0 where a page has none.
    pub frames: Vec<u64>,
    /// Number of the page in the first of them.
    #[serde(default)]
    pub first_page: u64,
}

/// `file-blocks`: which file a step of the agent told the blocks of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FileBlocks {
    /// The pmem region that the file system fills.
    pub device: String,
    /// The file's path at that time.
    pub file: String,
    /// The step `fiemap`.
    pub step: u32,
}

/// `promised`: bytes that must be on a disk once a step has ended well.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Promised {
    /// Ties it to its [`Found`].
    pub id: String,
    /// For people.
    pub what: String,
    /// The disk.
    pub device: String,
    /// The step (fsync, msync) that makes it true.
    pub after_step: u32,
    /// Where the DMA went.
    #[serde(default)]
    pub frames: Vec<u64>,
}

/// Where somebody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Where {
    /// The host in the disk image.
    Disk,
    /// The guest, in the same boot.
    Guest,
    /// The guest, after another boot.
    AfterReboot,
}

/// `found`: what was there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// Which promise.
    pub id: String,
    /// Where it was looked for.
    pub r#where: Where,
    /// Whether it was as promised.
    pub equal: bool,
    /// What differs.
    #[serde(default)]
    pub detail: String,
}

/// `image`: bytes of a disk image after the machine ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub struct Image {
    /// The disk.
    pub device: String,
    /// First sector (512 bytes).
    pub sector: u64,
    /// How many bytes.
    pub bytes: u64,
    /// xxh3-64, 16 hex digits.
    pub hash: String,
}

/// `fsck`: what a checker said of an image that nobody uses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Fsck {
    /// The disk.
    pub device: String,
    /// Whether it found nothing.
    pub clean: bool,
    /// What it printed.
    #[serde(default)]
    pub output: String,
}

/// `pins`: the kernel's counters of pinned pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Pins {
    /// `nr_foll_pin_acquired`.
    pub acquired: u64,
    /// `nr_foll_pin_released`.
    pub released: u64,
    /// Whether nothing should be pinned now.
    #[serde(default = "yes")]
    pub at_rest: bool,
}

/// `expected-stop`: the scenario itself makes the machine end so.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ExpectedStop {
    /// `panic`, `hang`, `reset`, `stopped`, `power-off`.
    pub how: String,
}

/// `disk-name`: how the guest calls a disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DiskName {
    /// The disk.
    pub device: String,
    /// The name of its block device: `vda`.
    pub name: String,
}

/// `step-failed`: a step did not come out as the scenario needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StepFailed {
    /// Its number.
    pub step: u32,
    /// What was needed.
    #[serde(default)]
    pub wanted: String,
    /// What came.
    #[serde(default)]
    pub got: String,
}

/// `power-cut`: images of a medium that a cut just after an event may leave, and that were looked at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PowerCut {
    /// The disk or region.
    pub device: String,
    /// The event.
    pub at: u64,
    /// How many different ones.
    pub images: u64,
    /// Sectors or cache lines of which more than one content was possible.
    #[serde(default)]
    pub open_units: u64,
    /// Promises about files that were in force there.
    #[serde(default)]
    pub promises: u64,
}

/// `crash-image`: one of them that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CrashImage {
    /// The disk or region.
    pub device: String,
    /// The event.
    pub at: u64,
    /// Its number.
    pub image: u32,
    /// What it was drawn from.
    pub seed: u64,
    /// Whether a checker found nothing.
    pub clean: bool,
    /// What it printed.
    #[serde(default)]
    pub output: String,
    /// Promised bytes that it does not hold.
    #[serde(default)]
    pub lost: Vec<LostBytes>,
    /// Flushes before the cut that were answered and not done.
    #[serde(default)]
    pub flushes_undone: u64,
}

/// Promised bytes that an image does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LostBytes {
    /// The step that wrote them.
    pub written: u32,
    /// The step that made them durable.
    pub synced: u32,
    /// What is there instead.
    #[serde(default)]
    pub detail: String,
}

/// `not-applicable`: the kernel lacks what the scenario is about.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NotApplicable {
    /// What it lacks.
    pub needs: String,
}

/// `must-hold`: what must be so, in the guest, once a step has ended well.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MustHold {
    /// Ties it to its [`Looked`].
    pub id: String,
    /// Whole, for people, and the finding's title: "the clone keeps its bytes".
    pub what: String,
    /// The step since which it must be so.
    pub since_step: u32,
    /// The promise that is broken where it is not.
    #[serde(default = "lost_data")]
    pub promise: Promise,
    /// Disks that the bytes come from or lie on; a planned fault there voids it.
    #[serde(default)]
    pub devices: Vec<String>,
}

/// `looked`: the step that looked, and what it must have found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Looked {
    /// Which `must-hold`.
    pub id: String,
    /// The step.
    pub step: u32,
    /// Which of its values.
    #[serde(default = "equal")]
    pub value: String,
    /// What that must be.
    #[serde(default = "always")]
    pub wanted: Value,
}

/// `frozen`: between two steps nothing may be written to a disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Frozen {
    /// The disk, which a file system fills.
    pub device: String,
    /// The step that froze it (FIFREEZE).
    pub freeze_step: u32,
    /// The step that thawed it (FITHAW).
    pub thaw_step: u32,
}

fn lost_data() -> Promise {
    Promise::O2
}

fn equal() -> String {
    "equal".into()
}

fn always() -> Value {
    Value::Bool(true)
}

#[derive(Deserialize)]
struct OfDevice {
    device: String,
}

#[derive(Deserialize)]
struct OfFrames {
    frames: Vec<u64>,
}

fn yes() -> bool {
    true
}

/// The keys that are no [`Fact::Other`].
pub const FACT_KEYS: &[&str] = &[
    "file-page",
    "file-page-gone",
    "written-by-cache",
    "stable-pages-required",
    "file-blocks",
    "promised",
    "found",
    "image",
    "fsck",
    "pins",
    "expected-stop",
    "disk-name",
    "step-failed",
    "power-cut",
    "crash-image",
    "not-applicable",
    "must-hold",
    "looked",
    "frozen",
    "kernel-trace",
];

impl Fact {
    /// Reads a fact.
    ///
    /// # Errors
    /// A known key with a value that does not have its shape.
    pub fn read(key: &str, value: &Value) -> Result<Self, serde_json::Error> {
        Ok(match key {
            "file-page" => Self::FilePage(FilePage::deserialize(value)?),
            "file-page-gone" => Self::FilePageGone(OfFrames::deserialize(value)?.frames),
            "written-by-cache" => Self::WrittenByCache(OfDevice::deserialize(value)?.device),
            "stable-pages-required" => {
                Self::StablePagesRequired(OfDevice::deserialize(value)?.device)
            }
            "file-blocks" => Self::FileBlocks(FileBlocks::deserialize(value)?),
            "promised" => Self::Promised(Promised::deserialize(value)?),
            "found" => Self::Found(Found::deserialize(value)?),
            "image" => Self::Image(Image::deserialize(value)?),
            "fsck" => Self::Fsck(Fsck::deserialize(value)?),
            "pins" => Self::Pins(Pins::deserialize(value)?),
            "expected-stop" => Self::ExpectedStop(ExpectedStop::deserialize(value)?),
            "disk-name" => Self::DiskName(DiskName::deserialize(value)?),
            "step-failed" => Self::StepFailed(StepFailed::deserialize(value)?),
            "power-cut" => Self::PowerCut(PowerCut::deserialize(value)?),
            "crash-image" => Self::CrashImage(CrashImage::deserialize(value)?),
            "not-applicable" => Self::NotApplicable(NotApplicable::deserialize(value)?),
            "must-hold" => Self::MustHold(MustHold::deserialize(value)?),
            "looked" => Self::Looked(Looked::deserialize(value)?),
            "frozen" => Self::Frozen(Frozen::deserialize(value)?),
            "kernel-trace" => Self::KernelTrace(KernelTrace::deserialize(value)?),
            other => Self::Other(other.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_of_the_list_is_read_as_something() {
        for key in FACT_KEYS {
            let read = Fact::read(key, &Value::Null);
            assert!(!matches!(read, Ok(Fact::Other(_))), "{key}");
        }
    }

    /// The examples in docs/oracles.md are what the runner's author reads.
    #[test]
    fn each_documented_fact_is_understood() {
        let text = include_str!("../../../docs/oracles.md");
        let mut seen = Vec::new();
        for line in text.lines().filter(|line| line.starts_with("| `")) {
            let mut code = line.split('`').skip(1).step_by(2);
            let (Some(key), Some(value)) = (code.next(), code.next()) else {
                continue;
            };
            let Ok(value) = serde_json::from_str::<Value>(value) else {
                continue;
            };
            let fact = Fact::read(key, &value).unwrap_or_else(|error| panic!("{key}: {error}"));
            assert!(
                !matches!(fact, Fact::Other(_)),
                "{key} is documented and unknown"
            );
            seen.push(key);
        }
        assert_eq!(seen.len(), 20, "{seen:?}");
        seen.sort_unstable();
        let mut listed = FACT_KEYS.to_vec();
        listed.sort_unstable();
        assert_eq!(
            seen, listed,
            "documented, and in the list that slips are compared with"
        );
    }

    #[test]
    fn a_value_of_the_wrong_shape_is_refused() {
        let value = serde_json::json!({"device": 7});
        assert!(Fact::read("stable-pages-required", &value).is_err());
        assert!(Fact::read("a note", &value).is_ok());
    }
}
