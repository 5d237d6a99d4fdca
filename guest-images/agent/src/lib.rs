//! The parts of the programs that run inside machines: PID 1 of the nested machine.

pub mod nested;
