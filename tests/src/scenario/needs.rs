//! What a scenario needs where it runs.

use super::model::{Content, Scenario};

impl Scenario {
    /// Programs that its file systems need, beside those of e2fsprogs, which are always there.
    #[must_use]
    pub fn host_programs(&self) -> Vec<&'static str> {
        let programs = self.contents().flat_map(|content| match content {
            Content::Xfs => ["mkfs.xfs", "xfs_repair"].as_slice(),
            Content::Btrfs => &["mkfs.btrfs", "btrfs"],
            Content::Ext4
            | Content::Ext4Small
            | Content::Ext4Verity
            | Content::Zero
            | Content::Pattern(_) => &[],
        });
        let mut programs: Vec<_> = programs.copied().collect();
        programs.sort_unstable();
        programs.dedup();
        programs
    }

    /// Whether this host's kernel has to mount an xfs image of its power cuts: nothing else replays that log.
    #[must_use]
    pub fn mounts_xfs(&self) -> bool {
        let Some(cuts) = &self.power_cut else {
            return false;
        };
        let disks = self.disks.iter().map(|disk| (&disk.id, disk.content));
        let pmems = self.pmems.iter().map(|pmem| (&pmem.id, pmem.content));
        let mut contents = disks.chain(pmems);
        contents.any(|(id, content)| content == Content::Xfs && cuts.devices.contains(id))
    }
}
