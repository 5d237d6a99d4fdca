//! Every compression, every way to be cut or changed.

use super::*;
use crate::test_support::{bzimage, elf_of_len, gzip, lz4_legacy, xz, zstd};

fn with_length(mut packed: Vec<u8>, len: u32) -> Vec<u8> {
    packed.extend_from_slice(&len.to_le_bytes());
    packed
}

#[test]
fn every_supported_compression_gives_the_elf_back() {
    let elf = elf_of_len(20_000);
    for packed in [zstd(&elf), lz4_legacy(&elf), xz(&elf), elf.clone()] {
        assert_eq!(
            extract_vmlinux(&bzimage("6.12.0", &with_length(packed, 20_000))).unwrap(),
            elf
        );
    }
    assert_eq!(
        extract_vmlinux(&bzimage("6.12.0", &gzip(&elf))).unwrap(),
        elf,
        "gzip ends with its own length"
    );
}

#[test]
fn an_lz4_payload_may_have_several_blocks() {
    let elf = elf_of_len(unpack::LZ4_BLOCK + 1234);
    let len = u32::try_from(elf.len()).unwrap();
    assert_eq!(
        extract_vmlinux(&bzimage("6.1.0", &with_length(lz4_legacy(&elf), len))).unwrap(),
        elf
    );
}

#[test]
fn the_release_is_the_first_word_of_the_version_text() {
    assert_eq!(
        kernel_release(&bzimage("6.1.0-56-cloud-amd64", b"")).as_deref(),
        Some("6.1.0-56-cloud-amd64")
    );
    assert_eq!(kernel_release(b"no kernel"), None);
}

#[test]
fn a_declared_length_that_is_a_lie_is_refused() {
    let elf = elf_of_len(5_000);
    for (packed, lie) in [
        (zstd(&elf), 4_999),
        (zstd(&elf), 5_001),
        (lz4_legacy(&elf), 10),
        (xz(&elf), 6_000),
    ] {
        let image = bzimage("6.12.0", &with_length(packed, lie));
        assert!(matches!(
            extract_vmlinux(&image),
            Err(BzImageError::WrongLength { .. })
        ));
    }
    let image = bzimage("6.12.0", &with_length(zstd(&elf), u32::MAX));
    assert!(matches!(
        extract_vmlinux(&image),
        Err(BzImageError::TooLong(_))
    ));
}

#[test]
fn other_files_and_other_payloads_are_named() {
    assert!(matches!(
        extract_vmlinux(b""),
        Err(BzImageError::NotABzImage)
    ));
    assert!(matches!(
        extract_vmlinux(&[0; 4096]),
        Err(BzImageError::NotABzImage)
    ));
    let bzip2 = bzimage("6.12.0", b"BZh9........");
    assert!(
        matches!(extract_vmlinux(&bzip2), Err(BzImageError::UnknownCompression(name)) if name == "bzip2")
    );
    let text = with_length(zstd(b"not an elf"), 10);
    assert!(matches!(
        extract_vmlinux(&bzimage("6.12.0", &text)),
        Err(BzImageError::NotElf)
    ));
    let mut old = bzimage("6.12.0", b"");
    old[0x206..0x208].copy_from_slice(&0x207u16.to_le_bytes());
    assert!(matches!(
        extract_vmlinux(&old),
        Err(BzImageError::ProtocolTooOld(0x207))
    ));
}

#[test]
fn an_image_cut_anywhere_is_an_error_and_no_panic() {
    let elf = elf_of_len(3_000);
    for packed in [zstd(&elf), lz4_legacy(&elf), xz(&elf)] {
        let image = bzimage("6.12.0", &with_length(packed, 3_000));
        for len in 0..image.len() {
            assert!(extract_vmlinux(&image[..len]).is_err(), "cut at {len}");
        }
    }
}

#[test]
fn a_payload_with_any_byte_changed_never_panics() {
    let elf = elf_of_len(600);
    for packed in [zstd(&elf), lz4_legacy(&elf), xz(&elf)] {
        let image = bzimage("6.12.0", &with_length(packed, 600));
        for at in 0..image.len() {
            let mut bad = image.clone();
            bad[at] ^= 0xff;
            // Some flips do no harm (unused header fields); what matters is that each returns.
            let _ = extract_vmlinux(&bad);
        }
    }
}

#[test]
fn only_what_is_whole_and_foreign_may_unpack_itself() {
    let bzip2 = bzimage("6.12.0", b"BZh9........");
    let text = bzimage("6.12.0", &with_length(zstd(b"not an elf"), 10));
    for image in [bzip2, text, bzimage("6.12.0", b"")] {
        assert!(extract_vmlinux(&image).unwrap_err().may_unpack_itself());
    }
    let whole = bzimage("6.12.0", &with_length(xz(&elf_of_len(500)), 500));
    let cut = extract_vmlinux(&whole[..whole.len() - 1]).unwrap_err();
    assert!(!cut.may_unpack_itself());
    let lie = bzimage("6.12.0", &with_length(xz(&elf_of_len(500)), 501));
    assert!(!extract_vmlinux(&lie).unwrap_err().may_unpack_itself());
}
