//! What the session timer core does, one file for each behaviour. Time is virtual, nothing sleeps.

mod completion;
mod offering;
mod reading;
mod rejection;
mod support;
