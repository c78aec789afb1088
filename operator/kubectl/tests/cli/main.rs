//! The plugin as a process, against an API server of a few lines: what it shows, how it ends, and what it does when pods,
//! rights or servers are not there.

mod calls;
mod failures;
mod fake;
mod offline;
mod ran;
mod writing;
