//! What a scenario needs where it runs.

use super::model::{Content, Scenario};

impl Scenario {
    /// Programs that its file systems need, beside those of e2fsprogs, which are always there.
    #[must_use]
    pub fn host_programs(&self) -> Vec<&'static str> {
        let disks = self.disks.iter().map(|disk| disk.content);
        let contents = disks.chain(self.pmems.iter().map(|pmem| pmem.content));
        let programs = contents.flat_map(|content| match content {
            Content::Xfs => ["mkfs.xfs", "xfs_repair"].as_slice(),
            Content::Btrfs => &["mkfs.btrfs"],
            Content::Ext4 | Content::Ext4Small | Content::Zero | Content::Pattern(_) => &[],
        });
        let mut programs: Vec<_> = programs.copied().collect();
        programs.sort_unstable();
        programs.dedup();
        programs
    }
}
