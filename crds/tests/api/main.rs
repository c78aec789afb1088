//! The public API of the crate, and what it writes.

mod annotation;
mod bounds;
mod common;
mod files;
mod lint;
mod properties;
mod schema;
mod violations;
