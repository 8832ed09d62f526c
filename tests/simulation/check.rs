//! The promises that are checked when a run is over.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::server::World;

/// Every request that was not cancelled was answered, once.
pub(crate) fn nobody_waits(world: &World) {
    let mut books = world.books.lock().unwrap();
    let mut broken = None;
    for (number, request) in books.requests.iter().enumerate() {
        let wrong = match request.answers {
            0 => !request.cancelled,
            1 => false,
            _ => true,
        };
        if wrong {
            let kind = if request.runtime == 1 { "of the other runtime " } else { "" };
            broken = Some(format!("request {number} {kind}since {:?}: {} answers", request.began, request.answers));
            break;
        }
    }
    if let Some(how) = broken {
        books.broken("every request is answered once", how);
    }
}

/// The last request of each process and tenant was served.
pub(crate) fn all_recovered(world: &World, last: &BTreeMap<(usize, usize), usize>) {
    let mut books = world.books.lock().unwrap();
    for ((process, tenant), number) in last {
        let answer = books.requests[*number].answer.clone();
        if answer != Some(Ok(200)) {
            books.broken("what is healed recovers", format!("process {process}, tenant {tenant}: {answer:?}"));
        }
    }
}

/// In no minute more token requests than the rejection limiter, lifetimes, failures and what was done to it explain.
pub(crate) fn token_requests_are_bounded(world: &World) {
    const MINUTE: Duration = Duration::from_secs(60);
    let mut books = world.books.lock().unwrap();
    let by_lifetime = 60 * 3 / world.plan.lifetime.as_secs() + 1;
    let mut broken = None;
    for ((process, tenant), view) in &books.views {
        for (at, asked) in view.asked.iter().enumerate() {
            let count = view.asked[at..].iter().take_while(|other| **other < *asked + MINUTE).count() as u64;
            let near = |moment: &&Duration| **moment + Duration::from_secs(5) >= *asked && **moment < *asked + MINUTE;
            let excuses = view.excuses.iter().filter(near).count() as u64;
            let bound = 13 + 12 + by_lifetime + 3 * excuses;
            if count > bound {
                broken = Some(format!(
                    "process {process}, tenant {tenant}: {count} from {asked:?} on, {bound} expected at most"
                ));
            }
        }
    }
    if let Some(how) = broken {
        books.broken("token requests are bounded", how);
    }
}
