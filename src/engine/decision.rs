//! What a request does about its token: a pure decision over the state of a cell.

use crate::token::Freshness;

/// All that the decision depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    /// The current token's, if there is a token.
    pub(crate) token: Option<Freshness>,
    /// A refresh is in flight.
    pub(crate) refreshing: bool,
    /// A failure is remembered and its pause is not over.
    pub(crate) failed: bool,
    /// The server said `invalid_token` of the current token, and that refresh has not finished.
    pub(crate) known_invalid: bool,
    /// The last refresh began at least the minimum interval ago.
    pub(crate) interval_passed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Go out with the current token.
    Go,
    /// Go out with the current token, and start a refresh for those who come later.
    GoAndRefresh,
    /// Wait for the refresh (start it if there is none); if it fails, go out with the current token while it is alive.
    WaitOrGo,
    /// Wait for the refresh (start it if there is none); there is no token to fall back on.
    Wait,
    /// Fail with the remembered error.
    Fail,
}

pub(crate) fn classify(situation: Situation) -> Decision {
    let Situation { token, refreshing, failed, known_invalid, interval_passed } = situation;
    // A token that is alive is never displaced by a failure, and a refresh is never started inside a failure's pause.
    let may_start = !failed && interval_passed;
    match token {
        None | Some(Freshness::Expired) if refreshing => Decision::Wait,
        None | Some(Freshness::Expired) if failed => Decision::Fail,
        None | Some(Freshness::Expired) => Decision::Wait,
        Some(Freshness::NearExpiry) if refreshing || may_start => Decision::WaitOrGo,
        Some(_) if refreshing && known_invalid => Decision::WaitOrGo,
        Some(Freshness::Stale) if !refreshing && may_start => Decision::GoAndRefresh,
        Some(_) => Decision::Go,
    }
}

#[cfg(test)]
mod tests {
    use super::Decision::*;
    use super::Freshness::*;
    use super::*;

    /// All 80 situations, one row for each kind of token: (nothing, failed, unrested, refreshing, refreshing and known invalid).
    #[test]
    fn the_whole_table() {
        let table = [
            (None, [Wait, Fail, Wait, Wait, Wait]),
            (Some(Fresh), [Go, Go, Go, Go, WaitOrGo]),
            (Some(Stale), [GoAndRefresh, Go, Go, Go, WaitOrGo]),
            (Some(NearExpiry), [WaitOrGo, Go, Go, WaitOrGo, WaitOrGo]),
            (Some(Expired), [Wait, Fail, Wait, Wait, Wait]),
        ];
        for (token, [idle, failing, unrested, refreshing, holding]) in table {
            for bits in 0..16 {
                let [fly, failed, known_invalid, interval_passed] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
                let expected = match (fly, failed, known_invalid, interval_passed) {
                    (true, _, true, _) => holding,
                    (true, _, false, _) => refreshing,
                    (false, true, ..) => failing,
                    (false, false, _, false) => unrested,
                    (false, false, _, true) => idle,
                };
                let situation = Situation { token, refreshing: fly, failed, known_invalid, interval_passed };
                assert_eq!(classify(situation), expected, "{situation:?}");
            }
        }
    }
}
