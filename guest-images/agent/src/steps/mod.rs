//! One function per step, by concern. Each prepares, makes its calls inside `Stamp::around`, and
//! judges afterwards.

pub mod aio;
pub mod blocks;
pub mod crowd;
pub mod file_system;
pub mod files;
pub mod frames;
pub mod load;
pub mod machine;
pub mod maps;
pub mod measure;
pub mod memory;
pub mod memory_block;
pub mod net;
pub mod observe;
pub mod packet;
pub mod pipe;
pub mod process;
pub mod swap;
pub mod transfer;
pub mod uring;
pub mod userfault;
pub mod wait;
pub mod xdp;
pub mod zero_copy;

use pincushion_abi::Step;

use crate::agent::Agent;
use crate::found::StepResult;
use crate::stamp::Stamp;
use crate::steps::transfer::{Ends, Part};

/// Runs a step in this thread.
#[expect(clippy::too_many_lines, reason = "a table: one line per step")]
pub fn run(agent: &Agent, stamp: &mut Stamp<'_>, step: &Step) -> StepResult {
    match step {
        Step::LoadModule { name } => machine::load_module(stamp, name),
        Step::Mount {
            source,
            target,
            fstype,
            options,
        } => files::mount(stamp, source, target, fstype, options),
        Step::Remount { target, options } => files::remount(stamp, target, options),
        Step::Umount { target } => files::umount(stamp, target),
        Step::Mkdir { path } => files::mkdir(stamp, path),
        Step::WaitPath { path, limit_ms } => wait::path(stamp, path, *limit_ms),
        Step::Open { path, flags, file } => files::open(agent, stamp, path, flags, file),
        Step::Close { file } => files::close(agent, stamp, file),
        Step::Unlink { path } => files::unlink(stamp, path),
        Step::Rename { from, to } => files::rename(stamp, from, to),
        Step::Truncate { file, len } => files::truncate(agent, stamp, file, *len),
        Step::Fallocate {
            file,
            mode,
            offset,
            len,
        } => files::fallocate(agent, stamp, file, mode, *offset, *len),
        Step::WritePattern {
            file,
            offset,
            len,
            pattern,
        } => transfer::write_pattern(agent, stamp, &Part::new(file, *offset, *len), *pattern),
        Step::ReadHash { file, offset, len } => {
            transfer::read_hash(agent, stamp, &Part::new(file, *offset, *len))
        }
        Step::ReadVerify {
            file,
            offset,
            len,
            pattern,
        } => transfer::read_verify(agent, stamp, &Part::new(file, *offset, *len), *pattern),
        Step::Mmap {
            file,
            kind,
            offset,
            len,
            map,
            populate,
        } => {
            let wanted = maps::Wanted {
                file: file.as_deref(),
                kind: *kind,
                offset: *offset,
                len: *len,
                populate: *populate,
            };
            maps::map(agent, stamp, map, &wanted)
        }
        Step::Munmap { map } => maps::unmap(agent, stamp, map),
        Step::Frames { map, offset, len } => frames::of_map(agent, stamp, map, *offset, *len),
        Step::PageFlags {
            frame,
            with,
            without,
            limit_ms,
        } => {
            let wanted = frames::Flags::named(with, without)?;
            wait::flags(stamp, *frame, &wanted, *limit_ms)
        }
        Step::Store {
            map,
            offset,
            len,
            pattern,
        } => maps::store(agent, stamp, &Part::new(map, *offset, *len), *pattern),
        Step::Load { map, offset, len } => maps::load(agent, stamp, &Part::new(map, *offset, *len)),
        Step::Verify {
            map,
            offset,
            len,
            pattern,
        } => maps::verify(agent, stamp, &Part::new(map, *offset, *len), *pattern),
        Step::PreadInto {
            file,
            offset,
            map,
            map_offset,
            len,
        } => {
            let ends = Ends::new(file, *offset, map, *map_offset, *len);
            transfer::pread_into(agent, stamp, &ends)
        }
        Step::PwriteFrom {
            file,
            offset,
            map,
            map_offset,
            len,
        } => {
            let ends = Ends::new(file, *offset, map, *map_offset, *len);
            transfer::pwrite_from(agent, stamp, &ends)
        }
        Step::AioSubmit {
            direction,
            file,
            offset,
            map,
            map_offset,
            len,
            tag,
        } => {
            let ends = Ends::new(file, *offset, map, *map_offset, *len);
            aio::submit(agent, stamp, *direction, &ends, tag)
        }
        Step::AioWait { tag } => aio::wait(agent, stamp, tag),
        Step::UringSubmit {
            direction,
            file,
            offset,
            map,
            map_offset,
            len,
            tag,
        } => {
            let ends = Ends::new(file, *offset, map, *map_offset, *len);
            uring::submit(agent, stamp, *direction, &ends, tag)
        }
        Step::UringWait { tag } => uring::wait(agent, stamp, tag),
        Step::Fsync { file } => files::fsync(agent, stamp, file),
        Step::Fdatasync { file } => files::fdatasync(agent, stamp, file),
        Step::Msync {
            map,
            offset,
            len,
            flags,
        } => maps::msync(agent, stamp, map, *offset, *len, flags),
        Step::SyncFileRange {
            file,
            offset,
            len,
            flags,
        } => files::sync_file_range(agent, stamp, file, *offset, *len, flags),
        Step::Syncfs { file } => files::syncfs(agent, stamp, file),
        Step::Sync {} => files::sync(stamp),
        Step::Madvise { map, advice } => maps::madvise(agent, stamp, map, advice),
        Step::Fork { child } => process::fork(agent, stamp, child),
        Step::InChild { child, step } => process::in_child(agent, stamp, child, step),
        Step::EndChild { child } => process::end_child(agent, stamp, child),
        Step::DropCaches {} => observe::drop_caches(stamp),
        Step::Counters {
            names,
            until_pinned,
            until_grown,
            limit_ms,
        } => match (until_pinned, until_grown) {
            (Some(pinned), _) => wait::pinned(stamp, names, *pinned, *limit_ms),
            (None, Some(counter)) => wait::grown(stamp, names, counter, *limit_ms),
            (None, None) => observe::counters(stamp, names),
        },
        Step::WaitText {
            path,
            text,
            limit_ms,
        } => wait::text(stamp, path, text, *limit_ms),
        Step::WriteFile { path, text } => observe::write_file(stamp, path, text),
        Step::ReadFile { path, numbers } => observe::read_file(stamp, path, numbers),
        Step::WhereBlocked {
            thread,
            until,
            or_done,
            limit_ms,
        } => {
            let until = until.as_deref();
            wait::where_blocked(agent, stamp, thread, until, *or_done, *limit_ms)
        }
        Step::Exec { argv } => process::exec(agent, stamp, argv),
        Step::FsLoad(wanted) => load::run(stamp, wanted),
        Step::Rebind { device } => machine::rebind(stamp, device),
        Step::FindDisk { serial } => machine::find_disk(stamp, serial),
        Step::FindNet { mac } => net::find(stamp, mac),
        Step::LinkSet(wanted) => net::set(stamp, wanted),
        Step::Ping(ping) => net::ping(stamp, ping),
        Step::TcpEcho(echo) => net::tcp_echo(stamp, echo),
        Step::PacketOpen {
            interface,
            socket,
            ether_type,
        } => packet::open(agent, stamp, interface, *ether_type, socket),
        Step::PacketSend {
            socket,
            len,
            pattern,
            count,
        } => packet::send(agent, stamp, socket, *len, *pattern, *count),
        Step::PacketReceive {
            socket,
            count,
            limit_ms,
        } => packet::receive(agent, stamp, socket, *count, *limit_ms),
        Step::PacketVerify(wanted) => packet::verify(agent, stamp, wanted),
        Step::PacketClose { socket } => packet::close(agent, stamp, socket),
        Step::XdpOpen { map, socket } => xdp::open(agent, stamp, map, socket),
        Step::XdpBind {
            socket,
            interface,
            queue,
        } => xdp::bind(agent, stamp, socket, interface, *queue),
        Step::XdpSend {
            socket,
            offset,
            len,
        } => xdp::send(agent, stamp, socket, *offset, *len),
        Step::XdpWait {
            socket,
            count,
            limit_ms,
        } => xdp::wait(agent, stamp, socket, *count, *limit_ms),
        Step::XdpListen {
            socket,
            interface,
            queue,
            offset,
            count,
        } => {
            let frames = xdp::Frames {
                offset: *offset,
                count: *count,
            };
            xdp::listen(agent, stamp, socket, interface, *queue, frames)
        }
        Step::XdpReceive {
            socket,
            count,
            limit_ms,
        } => xdp::receive(agent, stamp, socket, *count, *limit_ms),
        Step::XdpClose { socket } => xdp::close(agent, stamp, socket),
        Step::FindPmem { start, limit_ms } => blocks::find_pmem(stamp, *start, *limit_ms),
        Step::Fiemap { file } => blocks::fiemap(agent, stamp, file),
        Step::Clone { from, to } => blocks::clone(agent, stamp, from, to),
        Step::Interrupt { thread } => process::interrupt(agent, stamp, thread),
        Step::RunFirst {} => process::run_first(stamp),
        Step::UringRegister {
            map,
            offset,
            len,
            times,
            rings,
            tag,
        } => {
            let count = uring::Count {
                times: *times,
                rings: *rings,
            };
            let span = agent.span(map, *offset, *len)?;
            uring::register(agent, stamp, span, &count, tag)
        }
        Step::UringFixed(transfer) => uring::fixed(agent, stamp, transfer),
        Step::UringRelease { tag } => uring::release(agent, stamp, tag),
        Step::FileSystem(act) => file_system::run(agent, stamp, act),
        Step::Swap(act) => swap::run(agent, stamp, act),
        Step::Memory(act) => memory::run(agent, stamp, act),
        Step::Userfault(act) => userfault::run(agent, stamp, act),
        Step::Pipe(act) => pipe::run(agent, stamp, act),
        Step::Crowd(act) => crowd::run(agent, stamp, act),
        Step::MemoryBlock(act) => memory_block::run(agent, stamp, act),
        Step::ZeroCopy(act) => zero_copy::run(agent, stamp, act),
        Step::Measure(act) => measure::run(agent, stamp, act),
        Step::Dmesg {} => observe::dmesg(agent, stamp),
        Step::Reboot {} => machine::reboot(stamp),
        Step::PowerOff {} => machine::power_off(stamp),
        Step::Panic {} => machine::panic(stamp),
        Step::Hang {} => machine::hang(agent, stamp),
        Step::Mark { name: _ } => Ok(crate::found::Found::nothing()),
    }
}

#[cfg(test)]
pub mod testing;
