//! What the product tells Prometheus, and what its chart makes of that: the reference of all metrics, alerts, dashboards,
//! and a real Prometheus to try them with.

pub mod everything;
pub mod exposition;
pub mod phones;
pub mod reference;
pub mod server;
pub mod shipped;
