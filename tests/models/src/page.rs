//! The one page of a model: what the kernel keeps in `struct page`, in two page tables, in the file system and on the media.

/// An entry of a page table that may lead to the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pte {
    /// The page is not mapped here.
    None,
    /// A write faults.
    ReadOnly,
    /// A write, and so GUP-fast for writing, goes through without a fault.
    Writable,
}

/// What a write-back under way reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The page itself: it has to stay as it is.
    Page,
    /// A copy made before.
    Copy,
}

/// Whose page table.
pub const PARENT: usize = 0;
/// Of the child that fork made.
pub const CHILD: usize = 1;

/// The page, its file and its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// `_refcount`.
    pub refs: i64,
    /// `_mapcount`, counted from 0.
    pub mapcount: i64,
    /// The entries of parent and child.
    pub ptes: [Pte; 2],
    /// `page->mapping`: the file has this page.
    pub in_file: bool,
    /// `PG_dirty`.
    pub dirty: bool,
    /// `PG_writeback`, and what is read meanwhile.
    pub writeback: Option<Source>,
    /// The file system has a block ready for a write (reserved, or buffers attached); `mkwrite` makes it so.
    pub prepared: bool,
    /// A clone refers to the block too.
    pub shared: bool,
    /// On a list of reclaim.
    pub on_lru: bool,
    /// Given back to the allocator.
    pub freed: bool,
    /// What the page holds.
    pub bytes: u32,
    /// What the file's block holds.
    pub media: u32,
    /// What the clone's block held when it was made.
    pub image: Option<u32>,
    /// What the file's page holds, after a migration took another frame for it.
    pub moved: Option<u32>,
}

impl Page {
    /// A page that its program has just written: mapped once, dirty, with a block that is ready.
    #[must_use]
    pub fn new() -> Self {
        Self {
            refs: 2,
            mapcount: 1,
            ptes: [Pte::Writable, Pte::None],
            in_file: true,
            dirty: true,
            writeback: None,
            prepared: true,
            shared: false,
            on_lru: true,
            freed: false,
            bytes: 1,
            media: 0,
            image: None,
            moved: None,
        }
    }

    /// How many page tables map it.
    #[must_use]
    pub fn real_mappings(&self) -> i64 {
        self.ptes
            .iter()
            .map(|pte| i64::from(*pte != Pte::None))
            .sum()
    }

    /// The references that the file and the page tables hold.
    #[must_use]
    pub fn own_refs(&self) -> i64 {
        self.real_mappings() + i64::from(self.in_file)
    }

    /// The page tables and the flags, short.
    #[must_use]
    pub fn flags(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        let pte = |pte| match pte {
            Pte::None => "-",
            Pte::ReadOnly => "ro",
            Pte::Writable => "rw",
        };
        words.push(match self.ptes[CHILD] {
            Pte::None => pte(self.ptes[PARENT]).to_owned(),
            child => format!("{}/{}", pte(self.ptes[PARENT]), pte(child)),
        });
        let mut flag = |is_set: bool, word: &str| {
            if is_set {
                words.push(word.to_owned());
            }
        };
        flag(self.dirty, "dirty");
        flag(self.writeback == Some(Source::Page), "WB");
        flag(self.writeback == Some(Source::Copy), "wb(copy)");
        flag(!self.prepared && !self.freed, "no-block");
        flag(self.shared, "shared");
        flag(!self.on_lru, "off-lru");
        flag(!self.in_file && !self.freed, "no-file");
        flag(self.freed, "FREED");
        words.join(" ")
    }

    /// Bytes of the page, and of the media; with a clone, its too.
    #[must_use]
    pub fn contents(&self) -> String {
        let mut text = format!("{}>{}", self.bytes, self.media);
        if let Some(image) = self.image {
            text.push_str(&format!(" clone={image}"));
        }
        if let Some(moved) = self.moved {
            text.push_str(&format!(" moved={moved}"));
        }
        text
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}
