//! What every [`Disk`](super::Disk) promises, as one suite that each backend runs.
//!
//! `conforms!(name, make)` makes a module of tests, one per clause of the contract in [`super::disk`]; `make` builds a disk of
//! a given size that is all zeros, or says why it cannot be had here. What only a file can suffer (truncated under
//! us, disk full, locks) is in [`super::host_trouble`].

pub(super) mod clauses;
pub(super) mod subject;

/// A module of tests, one per clause.
macro_rules! conforms {
    ($name:ident, $make:expr) => {
        $crate::backend::conformance::conforms!(
            $name, $make,
            what_is_written_is_read_back_over_odd_vectors,
            a_read_touches_nothing_outside_its_ranges,
            a_transfer_beyond_the_end_is_refused_and_changes_nothing,
            buffers_that_do_not_fit_are_refused,
            token_and_buffers_come_back,
            zeroes_and_discards_leave_their_neighbours_alone,
            nothing_is_a_legal_amount_of_work,
            a_flush_of_what_was_written_succeeds,
            many_in_flight_all_come_back_once,
            a_drain_finishes_even_what_was_not_begun,
            the_descriptor_goes_quiet_when_nothing_is_left,
            a_disk_with_work_under_way_can_be_dropped,
        );
    };
    ($name:ident, $make:expr, $($clause:ident,)+) => {
        mod $name {
            $(
                #[test]
                fn $clause() {
                    if let Some(mut subject) = $crate::backend::conformance::subject::disk($make) {
                        $crate::backend::conformance::clauses::$clause(&mut subject);
                    }
                }
            )+
        }
    };
}
pub(super) use conforms;

mod backends {
    use super::subject::{Subject, image};
    use crate::backend::{DiskOptions, Engine, FileOptions, OpenError, open_disk};

    fn open(backend: Engine, direct: bool, size: u64) -> Result<Subject, String> {
        let (dir, path) = image(size);
        let file = FileOptions {
            path,
            read_only: false,
            direct,
        };
        match open_disk(&DiskOptions {
            engine: backend,
            file,
        }) {
            Ok(disk) => Ok(Subject {
                disk,
                _dir: Some(dir),
            }),
            Err(error @ (OpenError::NoUring { .. } | OpenError::NoDirectIo { .. })) => {
                Err(error.to_string())
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A block device with blocks of 4096 bytes over an image, which it detaches from when the disk is closed.
    fn open_device(backend: Engine, direct: bool, size: u64) -> Result<Subject, String> {
        let (dir, path) = image(size);
        let losetup = |args: &[&str]| {
            let output = std::process::Command::new("losetup").args(args).output();
            let output = output.map_err(|error| format!("no losetup here: {error}"))?;
            if output.status.success() {
                Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
            } else {
                let message = String::from_utf8_lossy(&output.stderr).into_owned();
                Err(format!("no loop device to be had: {message}"))
            }
        };
        let device = losetup(&["-f", "--show", "-b", "4096", path.to_str().unwrap()])?;
        let file = FileOptions {
            path: device.clone().into(),
            read_only: false,
            direct,
        };
        let disk = open_disk(&DiskOptions {
            engine: backend,
            file,
        });
        losetup(&["-d", &device])?;
        match disk {
            Ok(disk) => {
                let block_size = if direct { 4096 } else { 512 };
                assert_eq!(disk.geometry().block_size, block_size);
                Ok(Subject {
                    disk,
                    _dir: Some(dir),
                })
            }
            Err(error @ OpenError::NoUring { .. }) => Err(error.to_string()),
            Err(error) => panic!("{error}"),
        }
    }

    conforms!(device, |size| super::open_device(
        super::Engine::File,
        false,
        size
    ));
    conforms!(device_direct, |size| super::open_device(
        super::Engine::File,
        true,
        size
    ));
    conforms!(device_uring_direct, |size| super::open_device(
        super::Engine::Uring,
        true,
        size
    ));
    conforms!(memory, |size| Ok(
        crate::backend::conformance::subject::Subject {
            disk: Box::new(crate::backend::MemoryDisk::new(size)),
            _dir: None,
        }
    ));
    conforms!(file, |size| super::open(super::Engine::File, false, size));
    conforms!(file_direct, |size| super::open(
        super::Engine::File,
        true,
        size
    ));
    conforms!(uring, |size| super::open(super::Engine::Uring, false, size));
    conforms!(uring_direct, |size| super::open(
        super::Engine::Uring,
        true,
        size
    ));
}
