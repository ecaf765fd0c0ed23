//! A proxy as the conformance suite breaks connections by it.

use std::time::Duration;

use lock_conformance::{Hook, Link};

use crate::proxy::Proxy;

impl Link for Proxy {
    fn partition(&self, on: bool) -> Hook {
        Proxy::stall(self, on);
        Ok(())
    }

    fn lose_replies(&self, on: bool) -> Hook {
        Proxy::drop_replies(self, on);
        if !on {
            // A connection that has lost replies is out of step.
            Proxy::sever(self);
        }
        Ok(())
    }

    fn refuse(&self, on: bool) -> Hook {
        Proxy::refuse(self, on);
        if on {
            Proxy::sever(self);
        }
        Ok(())
    }

    fn delay(&self, by: Duration) -> Hook {
        Proxy::delay_requests(self, by);
        Ok(())
    }

    fn hold_requests(&self, on: bool) -> Hook {
        Proxy::hold_requests(self, on);
        Ok(())
    }

    fn sever(&self) -> Hook {
        Proxy::sever(self);
        Ok(())
    }
}
