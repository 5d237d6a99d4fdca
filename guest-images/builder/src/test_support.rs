//! Fixtures for the unit tests, made in code: packed streams, a bzImage, a kernel module, a package.

use std::io::Write;

/// The shortest thing that passes for a 64-bit x86 ELF file, filled up with a pattern to `len` bytes.
pub(crate) fn elf_of_len(len: usize) -> Vec<u8> {
    let mut elf: Vec<u8> = (0..len)
        .map(|n| u8::try_from(n * 7 % 251).unwrap())
        .collect();
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18..20].copy_from_slice(&62u16.to_le_bytes());
    elf
}

/// An ELF program that asks for the loader at `path`: a header and one program header, PT_INTERP.
pub(crate) fn elf_with_loader(path: &str) -> Vec<u8> {
    const PT_INTERP: u32 = 3;
    let len = path.len() as u64 + 1;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]); // ET_EXEC, x86-64, version 1
    for field in [0u64, 64, 0] {
        elf.extend_from_slice(&field.to_le_bytes()); // entry, program headers, section headers
    }
    elf.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    elf.extend_from_slice(&PT_INTERP.to_le_bytes());
    elf.extend_from_slice(&4u32.to_le_bytes());
    for field in [120u64, 0, 0, len, len, 1] {
        elf.extend_from_slice(&field.to_le_bytes());
    }
    elf.extend_from_slice(path.as_bytes());
    elf.push(0);
    elf
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut writer =
        lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// What `lz4 -l` writes.
pub(crate) fn lz4_legacy(bytes: &[u8]) -> Vec<u8> {
    let mut output = vec![0x02, 0x21, 0x4c, 0x18];
    for chunk in bytes.chunks(8 << 20) {
        let packed = lz4_flex::block::compress(chunk);
        output.extend_from_slice(&u32::try_from(packed.len()).unwrap().to_le_bytes());
        output.extend_from_slice(&packed);
    }
    output
}

/// A bzImage with one setup sector, protocol 2.15 and `payload` (which ends with its declared length).
pub(crate) fn bzimage(release: &str, payload: &[u8]) -> Vec<u8> {
    const PAYLOAD_AT: u32 = 64;
    let mut image = vec![0; 1024 + PAYLOAD_AT as usize];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(&0xaa55u16.to_le_bytes());
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    image[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    image[0x211] = 1; // LOADED_HIGH
    image[0x248..0x24c].copy_from_slice(&PAYLOAD_AT.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    let version = format!("{release} (builder@test) #1 SMP");
    image[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
    image.extend_from_slice(payload);
    image
}

/// A whole bzImage around [`elf_of_len`].
pub(crate) fn bootable_bzimage(release: &str) -> Vec<u8> {
    let mut payload = zstd(&elf_of_len(4096));
    payload.extend_from_slice(&4096u32.to_le_bytes());
    bzimage(release, &payload)
}

/// A relocatable ELF file whose only content is `.modinfo`.
pub(crate) fn module(name: &str, depends: &str) -> Vec<u8> {
    module_with(name, depends, "")
}

/// The same with more entries of its `.modinfo`, each with a NUL behind it.
pub(crate) fn module_with(name: &str, depends: &str, more: &str) -> Vec<u8> {
    let modinfo =
        format!("license=GPL\0depends={depends}\0{more}name={name}\0vermagic=6.12.0 SMP\0");
    let names = b"\0.modinfo\0.shstrtab\0";
    let (modinfo_at, names_at) = (64u64, 64 + modinfo.len() as u64);
    let headers_at = (names_at + names.len() as u64).next_multiple_of(8);
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend_from_slice(&[1, 0, 62, 0, 1, 0, 0, 0]); // ET_REL, x86-64, version 1
    elf.extend_from_slice(&[0; 16]);
    elf.extend_from_slice(&headers_at.to_le_bytes());
    elf.extend_from_slice(&[0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
    elf.extend_from_slice(modinfo.as_bytes());
    elf.extend_from_slice(names);
    elf.resize(usize::try_from(headers_at).unwrap(), 0);
    elf.extend_from_slice(&section(0, 0, 0, 0));
    elf.extend_from_slice(&section(1, 1, modinfo_at, modinfo.len() as u64));
    elf.extend_from_slice(&section(10, 3, names_at, names.len() as u64));
    elf
}

fn section(name: u32, kind: u32, offset: u64, size: u64) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend_from_slice(&name.to_le_bytes());
    header.extend_from_slice(&kind.to_le_bytes());
    for field in [0, 0, offset, size, 0, 1, 0] {
        header.extend_from_slice(&field.to_le_bytes());
    }
    header
}

/// A tar archive of the given files.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        // Written raw, since `set_path` refuses the very paths that hostile packages would have.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A Debian package whose `data.tar.xz` has the given files.
pub(crate) fn deb(files: &[(&str, &[u8])]) -> Vec<u8> {
    let data = xz(&tar(files));
    ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", &xz(b"")),
        ("data.tar.xz", &data),
    ])
}

/// An `ar` archive as `dpkg-deb` writes it.
pub(crate) fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        archive.extend_from_slice(
            format!(
                "{name:<16}0           0     0     100644  {:<10}`\n",
                bytes.len()
            )
            .as_bytes(),
        );
        archive.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    archive
}
