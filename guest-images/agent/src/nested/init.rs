//! PID 1 of the nested machine: what has to be there before [`super::serve`] can begin.
//!
//! Two processes: PID 1 mounts, loads the modules, starts the server and from then on only reaps; the
//! server is its child, so that the children it waits for are its own and orphans are never its business.
//! When the server ends, for whatever reason, the machine switches off, and the host sees its stream end.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pincushion_abi::nested::{Hello, PORT_NAME, SOURCES, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::mount::{MountFlags, mount, mount_remount};
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, setrlimit, wait};
use rustix::system::{RebootCommand, finit_module, reboot};

/// What is mounted: type, where, and options. The root is memory already.
const MOUNTS: [(&str, &str, Option<&std::ffi::CStr>); 7] = [
    ("proc", "/proc", None),
    ("sysfs", "/sys", None),
    ("devtmpfs", "/dev", None),
    ("tmpfs", "/tmp", Some(c"mode=1777,size=90%")),
    ("tmpfs", "/dev/shm", Some(c"mode=1777,size=90%")),
    ("devpts", "/dev/pts", None),
    ("cgroup2", CGROUPS, None),
];

/// Which shared memory may have huge pages (Documentation/admin-guide/mm/transhuge.rst).
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
const CGROUPS: &str = "/sys/fs/cgroup";
/// Where the builder of images puts modules, named so that their order by name is the order in which to load them.
const MODULES: &str = "/modules";
const PORTS: &str = "/sys/class/virtio-ports";

/// How long the host's port may take to appear. The kernel finds it in milliseconds; on a busy host in some seconds.
const PORT_LIMIT: Duration = Duration::from_secs(60);

/// `MODULE_INIT_COMPRESSED_FILE` of include/uapi/linux/module.h: the kernel unpacks the module itself.
const COMPRESSED: i32 = 4;

/// Does the work of PID 1 and never returns: at its end the machine is off.
pub fn run() -> ! {
    for warning in prepare() {
        println!("nested: {warning}");
    }
    match Command::new("/proc/self/exe").arg("serve").spawn() {
        Ok(server) => reap_until_ended(Pid::from_child(&server)),
        Err(why) => println!("nested: cannot start the server: {why}"),
    }
    rustix::fs::sync();
    if let Err(why) = reboot(RebootCommand::PowerOff) {
        println!("nested: cannot switch off: {why}");
    }
    // PID 1 must not end by itself quietly; a panic of the kernel is what QEMU's -no-reboot ends on.
    panic!("the nested machine could not be switched off");
}

/// Serves on the host's port until the host is gone.
///
/// # Errors
///
/// What the port or the stream did, in words.
pub fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let mut warnings = Vec::new();
    note(
        &mut warnings,
        "spare the server when memory ends",
        fs::write("/proc/self/oom_score_adj", "-1000"),
    );
    let kept = super::Kept::make();
    note(&mut warnings, "wake all CPUs", wake_cpus());
    let port = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(wait_for_port()?)?;
    let hello = Hello {
        version: VERSION,
        sources: SOURCES.to_owned(),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        kvm_trouble: kept.as_ref().err().cloned(),
        tsc_trouble: super::tsc_trouble(),
        warnings,
    };
    let cgroups = Some(PathBuf::from(CGROUPS)).filter(|dir| dir.join("cgroup.procs").exists());
    let writer = port.try_clone()?;
    super::serve(
        &mut io::BufReader::with_capacity(256 << 10, port),
        writer,
        &hello,
        cgroups,
    )?;
    Ok(())
}

/// Mounts, limits and modules. What fails is told, since most commands can do without it.
fn prepare() -> Vec<String> {
    let mut warnings = Vec::new();
    for (kind, target, options) in MOUNTS {
        let mounted = fs::create_dir_all(target)
            .and_then(|()| Ok(mount(kind, target, kind, MountFlags::empty(), options)?));
        note(&mut warnings, &format!("mount {target}"), mounted);
    }
    let root = mount_remount("/", MountFlags::empty(), c"size=90%");
    note(
        &mut warnings,
        "let the root use the memory",
        root.map_err(io::Error::from),
    );
    // Pincushion asks for huge pages for its guests' memory: a nested page fault, which costs much here, for 2 MiB and not for 4 KiB.
    note(
        &mut warnings,
        "let guests have huge pages",
        fs::write(HUGE_PAGES, "advise"),
    );
    let files = Rlimit {
        current: Some(65536),
        maximum: Some(65536),
    };
    let raised = setrlimit(Resource::Nofile, files).map_err(io::Error::from);
    note(&mut warnings, "raise the limit of open files", raised);
    for (module, why) in load_modules(Path::new(MODULES)) {
        warnings.push(format!("cannot load {}: {why}", module.display()));
    }
    // From here on warnings are printed to the console, where the host reads them; during the boot they cost time.
    let printk = fs::write("/proc/sys/kernel/printk", "5");
    note(&mut warnings, "let the console have warnings", printk);
    warnings
}

fn note(warnings: &mut Vec<String>, what: &str, result: io::Result<()>) {
    if let Err(why) = result {
        warnings.push(format!("cannot {what}: {why}"));
    }
}

/// Wakes the CPUs that the kernel was told (`maxcpus=1`) to let sleep. Now, because a booting kernel rewrites its code all the
/// time, which QEMU's emulation of several CPUs does not always survive (see [`super::Kept`]).
fn wake_cpus() -> io::Result<()> {
    for cpu in fs::read_dir("/sys/devices/system/cpu")? {
        let switch = cpu?.path().join("online");
        // The first CPU has no switch; the directory has other things than CPUs, and a file of this name.
        if fs::read_to_string(&switch).is_ok_and(|state| state.trim() == "0") {
            fs::write(&switch, "1")?;
        }
    }
    Ok(())
}

/// Loads all modules below `dir`, in the order of their paths; what fails is tried again as long as others
/// succeed, so the order is a matter of time only. Returns what could not be loaded, and why.
fn load_modules(dir: &Path) -> Vec<(PathBuf, io::Error)> {
    let mut todo = modules_below(dir);
    loop {
        let failed: Vec<_> = todo
            .iter()
            .filter_map(|path| Some((path.clone(), load(path).err()?)))
            .collect();
        if failed.is_empty() || failed.len() == todo.len() {
            return failed;
        }
        todo = failed.into_iter().map(|(path, _)| path).collect();
    }
}

fn load(path: &Path) -> io::Result<()> {
    let flags = match path.extension() {
        Some(ext) if ext != "ko" => COMPRESSED,
        _ => 0,
    };
    match finit_module(File::open(path)?, c"", flags) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(why) => Err(why.into()),
    }
}

fn modules_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for path in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = path.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.to_string_lossy().contains(".ko") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Waits until the host's port is there, and returns its device file. Devices appear while PID 1 runs already.
fn wait_for_port() -> io::Result<PathBuf> {
    let deadline = Instant::now() + PORT_LIMIT;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, "/dev", inotify::WatchFlags::CREATE)?;
    loop {
        if let Some(port) = find_port() {
            return Ok(port);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&left))? == 0 {
            return Err(io::Error::other(format!(
                "no virtio-serial port named {PORT_NAME} within {} s",
                PORT_LIMIT.as_secs()
            )));
        }
        // What appeared does not matter: we look for ourselves. One read takes all events there are.
        let mut events = [0; 4096];
        rustix::io::read(&watch, &mut events)?;
    }
}

fn find_port() -> Option<PathBuf> {
    let ports = fs::read_dir(PORTS).ok()?.flatten();
    let mut named = ports.filter(|port| {
        fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT_NAME)
    });
    let device = Path::new("/dev").join(named.next()?.file_name());
    device.exists().then_some(device)
}

/// Reaps every orphan until the server is among the dead.
fn reap_until_ended(server: Pid) {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == server => {
                println!("nested: the server ended ({status:?}), switching off");
                return;
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(why) => {
                println!("nested: cannot wait for the server: {why}");
                return;
            }
        }
    }
}
