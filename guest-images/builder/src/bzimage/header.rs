//! The setup header at the front of a bzImage: `Documentation/arch/x86/boot.rst`, "The Real-Mode Kernel Header".

use super::BzImageError;

const SETUP_SECTS: usize = 0x1f1;
const SYSSIZE: usize = 0x1f4;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const KERNEL_VERSION: usize = 0x20e;
const LOADFLAGS: usize = 0x211;
const XLOADFLAGS: usize = 0x236;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const INIT_SIZE: usize = 0x260;
/// `loadflags`: the protected-mode code is loaded at 1 MiB, as of every bzImage; a zImage lacks it.
const LOADED_HIGH: u8 = 1;
/// `xloadflags`: the kernel has the 64-bit entry at 0x200.
const XLF_KERNEL_64: u16 = 1;
/// Boot protocol 2.08 brought `payload_offset` and `payload_length`.
const FIRST_VERSION_WITH_PAYLOAD: u16 = 0x208;
const SECTOR: usize = 512;

/// What a bzImage says about itself. Every field is as the file has it: nothing is checked against its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetupHeader {
    version: u16,
    setup_len: u64,
    code_len: u64,
    payload_offset: u64,
    payload_len: u64,
    init_size: u32,
    is_64_bit: bool,
}

impl SetupHeader {
    /// Bytes at the front of a file that hold the whole header.
    pub const LEN: usize = INIT_SIZE + 4;

    /// Reads the header from the front of a file; `None` where it is no bzImage.
    #[must_use]
    pub fn parse(image: &[u8]) -> Option<Self> {
        if !is_bzimage(image) || image.get(LOADFLAGS)? & LOADED_HIGH == 0 {
            return None;
        }
        // 0 means 4, for the sake of kernels before protocol 2.00 (boot.rst "setup_sects").
        let setup_sects = match image.get(SETUP_SECTS)? {
            0 => 4,
            sectors => u64::from(*sectors),
        };
        Some(Self {
            version: u16_at(image, VERSION)?,
            setup_len: (setup_sects + 1) * SECTOR as u64,
            code_len: u64::from(u32_at(image, SYSSIZE)?) * 16,
            payload_offset: u64::from(u32_at(image, PAYLOAD_OFFSET)?),
            payload_len: u64::from(u32_at(image, PAYLOAD_LENGTH)?),
            init_size: u32_at(image, INIT_SIZE)?,
            is_64_bit: u16_at(image, XLOADFLAGS)? & XLF_KERNEL_64 != 0,
        })
    }

    /// Least length of the whole file in bytes. The payload is a part of the code, unless the header is wrong.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.setup_len + self.code_len.max(self.payload_offset + self.payload_len)
    }

    /// Whether the kernel can be entered in 64-bit mode.
    #[must_use]
    pub fn has_64_bit_entry(&self) -> bool {
        self.is_64_bit
    }

    /// Memory in bytes that the kernel needs from its load address on to unpack itself.
    #[must_use]
    pub fn init_size(&self) -> u64 {
        u64::from(self.init_size)
    }

    /// The compressed kernel inside `bzimage`, with the four bytes that declare its length.
    pub(super) fn payload<'a>(&self, bzimage: &'a [u8]) -> Result<&'a [u8], BzImageError> {
        if self.version < FIRST_VERSION_WITH_PAYLOAD {
            return Err(BzImageError::ProtocolTooOld(self.version));
        }
        let (offset, len) = (self.setup_len + self.payload_offset, self.payload_len);
        let truncated = || BzImageError::Truncated {
            offset,
            len,
            file_len: bzimage.len(),
        };
        let start = usize::try_from(offset).map_err(|_| truncated())?;
        let end = usize::try_from(offset + len).map_err(|_| truncated())?;
        bzimage.get(start..end).ok_or_else(truncated)
    }
}

/// Whether `image` begins with a bzImage's setup header.
#[must_use]
pub fn is_bzimage(image: &[u8]) -> bool {
    u16_at(image, BOOT_FLAG) == Some(0xaa55)
        && image.get(HEADER_MAGIC..HEADER_MAGIC + 4) == Some(b"HdrS")
}

/// What `uname -r` says in the kernel of `bzimage`, from the version text that its header points at.
#[must_use]
pub fn kernel_release(bzimage: &[u8]) -> Option<String> {
    if !is_bzimage(bzimage) {
        return None;
    }
    // The pointer is relative to the second sector, boot.rst "kernel_version".
    let start = usize::from(u16_at(bzimage, KERNEL_VERSION)?).checked_add(SECTOR)?;
    let text = bzimage.get(start..)?;
    let end = text
        .iter()
        .take(256)
        .position(|byte| matches!(byte, b' ' | 0))?;
    let release = std::str::from_utf8(text.get(..end)?).ok()?;
    (!release.is_empty()).then(|| release.to_owned())
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(field.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}
