//! The catalogue: a file for each family of behaviours.
//!
//! A scenario is one short async function over a [`World`](crate::e2e::World);
//! it starts what it needs, asserts, and leaves the rest to what is checked
//! after every scenario.

mod active_health;
mod admin;
pub(crate) mod bad_answers;
mod bodies;
mod changes;
mod choices;
mod clients;
mod failover;
mod fields;
mod framing;
pub(crate) mod hygiene;
mod keep_alive;
mod kills;
mod limits;
mod load;
mod overload;
mod passive_health;
mod raw;
mod restart;
mod rotation;
mod stop;
mod storms;
mod streaming;
mod upgrades;
mod weights;

use crate::e2e::Scenario;

/// What became of one hostile case.
pub(crate) struct Found {
    pub(crate) case: String,
    /// What it is about, and the sections that say what may come of it.
    pub(crate) rule: &'static str,
    /// Why it is not what is asked of `lb`.
    pub(crate) wrong: Option<String>,
}

/// All scenarios, in the order of the catalogue.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    [
        rotation::SCENARIOS,
        weights::SCENARIOS,
        choices::SCENARIOS,
        active_health::SCENARIOS,
        passive_health::SCENARIOS,
        failover::SCENARIOS,
        kills::SCENARIOS,
        storms::SCENARIOS,
        keep_alive::SCENARIOS,
        clients::SCENARIOS,
        admin::SCENARIOS,
        limits::SCENARIOS,
        bodies::SCENARIOS,
        streaming::SCENARIOS,
        framing::SCENARIOS,
        hygiene::SCENARIOS,
        fields::SCENARIOS,
        bad_answers::SCENARIOS,
        upgrades::SCENARIOS,
        load::SCENARIOS,
        overload::SCENARIOS,
        changes::SCENARIOS,
        stop::SCENARIOS,
        restart::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

/// One line of the catalogue: number, family and function, how it judges time,
/// and what it asserts. It judges `lb` alone, unless `.anybodys()` or `.basic()`
/// follows, and is played on real sockets alone, unless `.simulated()` does.
macro_rules! scenario {
    ($number:literal, $group:literal, $function:ident, $clock:ident, $asserts:literal) => {
        crate::e2e::Scenario {
            number: $number,
            group: $group,
            name: stringify!($function),
            clock: crate::e2e::Clock::$clock,
            asserts: $asserts,
            judges: crate::e2e::Judges::Ours,
            simulated: false,
            run: |world| Box::pin($function(world)),
        }
    };
}
use scenario;
