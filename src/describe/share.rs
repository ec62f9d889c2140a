//! How the device's time is shared between cameras and clients.

use std::time::Duration;

/// Keeps count of the device's time while both cameras and clients want it.
pub struct TimeShare {
    /// The part that clients have: 0 to 1.
    clients: f64,
    /// Seconds that clients had beyond their part, weighted by the cameras' part. Below 0, they are owed time.
    excess: f64,
}

impl TimeShare {
    /// Clients have this part of the time, 0 to 1.
    pub fn new(clients: f64) -> Self {
        Self { clients, excess: 0.0 }
    }

    /// The device worked for so long on so many requests of cameras and of clients together.
    pub fn spent(&mut self, time: Duration, cameras: usize, clients: usize) {
        let each = time.as_secs_f64() / (cameras + clients).max(1) as f64;
        self.excess += each * (clients as f64 * (1.0 - self.clients) - cameras as f64 * self.clients);
    }

    /// Whether clients are due. Who wants no time neither keeps a claim nor a debt of the other.
    pub fn clients_are_due(&mut self, cameras_wait: bool, clients_wait: bool) -> bool {
        if !cameras_wait {
            self.excess = self.excess.min(0.0);
        }
        if !clients_wait {
            self.excess = self.excess.max(0.0);
        }
        self.excess <= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn while_both_want_it_each_has_its_part_of_the_time() {
        let mut share = TimeShare::new(0.25);
        let mut had = [0, 0];
        for _ in 0..4000 {
            let clients = usize::from(share.clients_are_due(true, true));
            // A request of a client takes three times as long.
            let seconds = [1, 3][clients];
            had[clients] += seconds;
            share.spent(SECOND * seconds, 1 - clients, clients);
        }
        let part = f64::from(had[1]) / f64::from(had[0] + had[1]);
        assert!((part - 0.25).abs() < 0.01, "{part}");
    }

    #[test]
    fn whoever_does_not_want_it_neither_owes_nor_is_owed() {
        let mut share = TimeShare::new(0.5);
        share.spent(SECOND * 100, 0, 1);
        assert!(!share.clients_are_due(true, true));
        assert!(share.clients_are_due(false, true));
        assert!(share.clients_are_due(true, true));
        share.spent(SECOND * 100, 1, 0);
        assert!(share.clients_are_due(true, false));
        share.spent(SECOND, 0, 1);
        assert!(!share.clients_are_due(true, true));
    }
}
