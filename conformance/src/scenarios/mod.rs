//! The scenarios, by theme. Each function is one row of the [table](crate::table).

pub(crate) mod breaking;
pub(crate) mod closing;
pub(crate) mod converting;
pub(crate) mod crash;
pub(crate) mod deadline;
pub(crate) mod dropped;
pub(crate) mod exclusive;
pub(crate) mod fencing;
pub(crate) mod inspecting;
pub(crate) mod late;
pub(crate) mod lease;
pub(crate) mod loss;
pub(crate) mod mix;
pub(crate) mod outage;
pub(crate) mod queue;
pub(crate) mod release;
pub(crate) mod renewal;
pub(crate) mod shared;
pub(crate) mod takeover;
