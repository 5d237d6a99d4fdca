//! The designs, one a file, each in the forms that were posted or drawn, and repaired.

pub mod bias;
pub mod dynamic;
pub mod field;
pub mod flag;
pub mod flag_mapping;
pub mod lru;
pub mod mapcount;
pub mod mapping;
pub mod none;
mod numbered;
pub mod page_aux;
pub mod proxy;
pub mod tree;
pub mod typed;
