//! What the session timer core does, one file for each behaviour. Time is virtual, nothing sleeps.

mod arming;
mod bye_transaction;
mod completion;
mod ending;
mod expiry;
mod forking;
mod hairpin;
mod limits;
mod never_panics;
mod observe;
mod offering;
mod reading;
mod rejection;
mod retransmission;
mod rules;
mod support;
