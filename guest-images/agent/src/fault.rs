//! From a failed system call to the [`Fault`] of a report.

use pincushion_abi::Fault;

/// A failed call before it is told: copies without allocating, so that it costs nothing between a
/// step's marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno {
    /// Name of the call.
    pub call: &'static str,
    /// The error number.
    pub number: i32,
}

impl Errno {
    /// What the last call of this thread left in `errno`.
    pub fn last(call: &'static str) -> Self {
        let number = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        Self { call, number }
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self {
            call: errno.call.to_owned(),
            errno: errno.number,
            name: name(errno.number),
        }
    }
}

/// A fault that is no errno: `text` says what and the way out.
pub fn sentence(call: &str, text: impl Into<String>) -> Fault {
    Fault {
        call: call.to_owned(),
        errno: 0,
        name: text.into(),
    }
}

/// The fault of an `io::Error`, with what was being done (`context`) in the call's name.
pub fn io(call: &str, error: &std::io::Error) -> Fault {
    match error.raw_os_error() {
        Some(number) => Fault {
            call: call.to_owned(),
            errno: number,
            name: name(number),
        },
        None => sentence(call, error.to_string()),
    }
}

/// The symbolic name of an error number, or the C library's sentence for a rare one.
pub fn name(number: i32) -> String {
    let known = match number {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ESRCH => "ESRCH",
        libc::EINTR => "EINTR",
        libc::EIO => "EIO",
        libc::ENXIO => "ENXIO",
        libc::E2BIG => "E2BIG",
        libc::ENOEXEC => "ENOEXEC",
        libc::EBADF => "EBADF",
        libc::ECHILD => "ECHILD",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::ENOTBLK => "ENOTBLK",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::EXDEV => "EXDEV",
        libc::ENODEV => "ENODEV",
        libc::ENOTDIR => "ENOTDIR",
        libc::EISDIR => "EISDIR",
        libc::EINVAL => "EINVAL",
        libc::ENFILE => "ENFILE",
        libc::EMFILE => "EMFILE",
        libc::ENOTTY => "ENOTTY",
        libc::ETXTBSY => "ETXTBSY",
        libc::EFBIG => "EFBIG",
        libc::ENOSPC => "ENOSPC",
        libc::ESPIPE => "ESPIPE",
        libc::EROFS => "EROFS",
        libc::EPIPE => "EPIPE",
        libc::ERANGE => "ERANGE",
        libc::EDEADLK => "EDEADLK",
        libc::ENAMETOOLONG => "ENAMETOOLONG",
        libc::ENOSYS => "ENOSYS",
        libc::ENOTEMPTY => "ENOTEMPTY",
        libc::ELOOP => "ELOOP",
        libc::ENODATA => "ENODATA",
        libc::ETIME => "ETIME",
        libc::EBADMSG => "EBADMSG",
        libc::EOVERFLOW => "EOVERFLOW",
        libc::EILSEQ => "EILSEQ",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::ENOBUFS => "ENOBUFS",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::EALREADY => "EALREADY",
        libc::EINPROGRESS => "EINPROGRESS",
        libc::ESTALE => "ESTALE",
        libc::EUCLEAN => "EUCLEAN",
        libc::EREMOTEIO => "EREMOTEIO",
        libc::EDQUOT => "EDQUOT",
        libc::ECANCELED => "ECANCELED",
        libc::EHWPOISON => "EHWPOISON",
        other => return std::io::Error::from_raw_os_error(other).to_string(),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_is_told_with_its_name_number_and_symbol() {
        let fault = Fault::from(Errno {
            call: "fsync",
            number: libc::EUCLEAN,
        });
        assert_eq!(
            (fault.call.as_str(), fault.errno, fault.name.as_str()),
            ("fsync", 117, "EUCLEAN")
        );
    }

    #[test]
    fn a_rare_error_number_gets_a_sentence() {
        assert!(
            name(libc::ENOANO).contains("anode"),
            "{}",
            name(libc::ENOANO)
        );
    }
}
