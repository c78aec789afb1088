//! What tests of sipwarden share: real processes, real peers, and waiting for what they do.

pub mod admin;
pub mod agents;
pub mod docs;
pub mod fuzz;
pub mod kamailio;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod sidecar;
pub mod sim;
pub mod sipp;
pub mod wait;
