//! What a scenario needs where it runs.

use super::model::{Content, Scenario};

impl Scenario {
    /// Programs that its file systems need, beside those of e2fsprogs, which are always there.
    #[must_use]
    pub fn host_programs(&self) -> Vec<&'static str> {
        let disks = self.disks.iter().map(|disk| disk.content);
        let mut contents = disks.chain(self.pmems.iter().map(|pmem| pmem.content));
        if contents.any(|content| content == Content::Xfs) {
            vec!["mkfs.xfs", "xfs_repair"]
        } else {
            Vec::new()
        }
    }
}
