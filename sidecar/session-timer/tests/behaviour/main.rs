//! What the session timer core does, one file for each behaviour. Time is virtual, nothing sleeps.

mod answered_here;
mod app_called;
mod app_calls;
mod arming;
mod bye_transaction;
mod challenged;
mod completion;
mod ending;
mod expiry;
mod forking;
mod hairpin;
mod limits;
mod never_panics;
mod observe;
mod offering;
mod our_refresh;
mod probing;
mod reading;
mod referring;
mod rejection;
mod retransmission;
mod rules;
mod sdp_in_force;
mod support;
