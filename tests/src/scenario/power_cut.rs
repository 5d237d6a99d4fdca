//! `[power-cut]`: which media may lose their power, where in the log, and how many of the images that may be left are looked at.

use pincushion_devices::trace::event::Operation;
use serde::{Deserialize, Serialize};

use super::model::{Backend, Content, Scenario};

/// The table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PowerCut {
    /// Disks and regions whose writes are recorded and that are looked at.
    pub devices: Vec<String>,
    /// Images of each medium at each cut.
    #[serde(default = "eight")]
    pub images: u32,
    /// Most cuts; if `at` names more, the seed chooses among them.
    #[serde(default = "sixteen")]
    pub most: u32,
    /// So many bytes of a disk, in line, arrive together or not at all: 512, as virtio-blk has it, or 4096, as most disks are made.
    #[serde(default = "sector")]
    pub atomic: u64,
    /// Where the power goes.
    pub at: Vec<CutAt>,
}

fn eight() -> u32 {
    8
}

fn sixteen() -> u32 {
    16
}

fn sector() -> u64 {
    512
}

/// One place, or several: just after each event that fits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CutAt {
    /// What happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<CutEvent>,
    /// To which device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// In a request of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// In the request that the device counts so, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<u64>,
    /// In a guest step of this kind (`fsync`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// Only the event that is this one of those that fit, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Instead of all these: the event of this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Instead of all these: so many events of the whole run, by the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random: Option<u32>,
}

/// Events at which a cut can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CutEvent {
    /// A request was popped.
    Fetched,
    /// The host did its work.
    Executed,
    /// The guest is told.
    Used,
    /// A guest step begins.
    StepBegan,
    /// A guest step has ended.
    StepEnded,
}

impl CutEvent {
    /// Whether it belongs to a request.
    fn is_of_request(self) -> bool {
        matches!(self, Self::Fetched | Self::Executed | Self::Used)
    }
}

/// Refuses what cannot be meant.
pub(super) fn check(scenario: &Scenario) -> Result<(), String> {
    let Some(table) = &scenario.power_cut else {
        return Ok(());
    };
    if table.devices.is_empty() || table.at.is_empty() || table.images == 0 || table.most == 0 {
        return Err(
            "power-cut: name `devices` and places (`at`), and let images and most be more than 0"
                .into(),
        );
    }
    if !matches!(table.atomic, 512 | 4096) {
        return Err(format!(
            "power-cut: atomic = {}: use 512 or 4096",
            table.atomic
        ));
    }
    for id in &table.devices {
        let disk = scenario.disks.iter().find(|disk| disk.id == *id);
        let pmem = scenario.pmems.iter().find(|pmem| pmem.id == *id);
        let content = disk
            .map(|disk| disk.content)
            .or(pmem.map(|pmem| pmem.content));
        let content =
            content.ok_or_else(|| format!("power-cut: there is no disk or pmem `{id}`"))?;
        if content == Content::Btrfs {
            return Err(format!(
                "power-cut: `{id}` has btrfs, at which the host does not look yet: use ext4 or xfs"
            ));
        }
        if disk.is_some_and(|disk| disk.backend == Backend::Volatile) {
            return Err(format!(
                "power-cut: `{id}` has backend = \"volatile\", which loses its power at the end by itself: use `file` or `uring`"
            ));
        }
    }
    table.at.iter().try_for_each(|at| check_place(scenario, at))
}

fn check_place(scenario: &Scenario, at: &CutAt) -> Result<(), String> {
    if at.random.is_some() || at.seq.is_some() {
        let alone = |random, seq| CutAt {
            random,
            seq,
            ..CutAt::default()
        };
        return if *at == alone(at.random, None) || *at == alone(None, at.seq) {
            Ok(())
        } else {
            Err("power-cut: `random`, and `seq`, stand alone".into())
        };
    }
    let Some(event) = at.event else {
        return Err("power-cut: `at` needs an event, `seq` or `random`".into());
    };
    let of_request = at.device.is_some() || at.operation.is_some() || at.ordinal.is_some();
    if of_request && !event.is_of_request() || at.op.is_some() && event.is_of_request() {
        return Err(
            "power-cut: device, operation and ordinal go with the events fetched, executed and used; op with step-began and step-ended"
                .into(),
        );
    }
    if at.count == Some(0) {
        return Err("power-cut: count = 0 is no event; the first is 1".into());
    }
    match &at.device {
        Some(id) => super::check::known_disk(scenario, id),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;

    fn read(table: &str) -> Result<(), String> {
        let head = "name = 'x'\nsummary = 'y'\n[expect.default]\nverdict = 'pass'\n\
            [[disk]]\nid = 'a'\nsize = '16M'\ncontent = 'ext4'\n[[disk]]\nid = 'x'\nsize = '32M'\ncontent = 'xfs'\n\
            [[disk]]\nid = 'y'\nsize = '128M'\ncontent = 'btrfs'\n";
        parse(&format!("{head}[power-cut]\n{table}"), Path::new("x.toml"))
            .map(drop)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn places_that_mean_something_are_accepted() {
        read(
            "devices = ['a']\nimages = 4\nat = [{ event = 'used', device = 'a', operation = 'flush' }, \
            { event = 'executed', device = 'a', ordinal = 7 }, { event = 'step-ended', op = 'fsync', count = 2 }, { random = 5 }]",
        )
        .unwrap();
        read("devices = ['x']\nat = [{ random = 1 }]").unwrap();
    }

    #[test]
    fn places_that_mean_nothing_are_refused_with_the_reason() {
        for (table, why) in [
            ("devices = []\nat = [{ random = 1 }]", "name `devices`"),
            (
                "devices = ['b']\nat = [{ random = 1 }]",
                "no disk or pmem `b`",
            ),
            (
                "devices = ['y']\nat = [{ random = 1 }]",
                "the host does not look",
            ),
            (
                "devices = ['a']\natomic = 1024\nat = [{ random = 1 }]",
                "use 512 or 4096",
            ),
            (
                "devices = ['a']\nat = [{ random = 1, count = 2 }]",
                "stand alone",
            ),
            ("devices = ['a']\nat = [{ count = 2 }]", "needs an event"),
            (
                "devices = ['a']\nat = [{ event = 'used', op = 'fsync' }]",
                "op with step-began",
            ),
            (
                "devices = ['a']\nat = [{ event = 'step-ended', device = 'a' }]",
                "go with the events",
            ),
            (
                "devices = ['a']\nat = [{ event = 'used', count = 0 }]",
                "the first is 1",
            ),
            (
                "devices = ['a']\nat = [{ event = 'used', device = 'c' }]",
                "there is no device `c`",
            ),
        ] {
            let said = read(table).unwrap_err();
            assert!(said.contains(why), "{table}: {said}");
        }
    }
}
