//! What the agent understands on the guest's kernel command line.
//!
//! Words that do not begin with `pincushion.` belong to the kernel and are left alone; an unknown
//! word that does is told in a [`crate::Report::Note`], never an error.

/// Reports go out as JSON lines on `/dev/ttyS1` and marks as `{"mark":{"id":..,"phase":"begin"}}`
/// lines, for a machine that does not have the ports of [`crate::port`].
pub const AGENT_SERIAL: &str = "pincushion.agent=serial";

/// `pincushion.hung_task=<seconds>`: how long a task may sleep before the kernel calls it hung; 0
/// is never. Absent: the kernel's own limit stays.
pub const HUNG_TASK: &str = "pincushion.hung_task=";
