//! Messages of our own: responses to a request, and requests inside a dialog.

mod request;
mod response;

use std::fmt::Arguments;
use std::io::Write;

pub use request::{RequestParts, request};
pub use response::Responder;

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn put_fmt(out: &mut Vec<u8>, text: Arguments) {
    out.write_fmt(text).expect("a Vec takes every write");
}
