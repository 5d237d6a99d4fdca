//! Decides what happens to a request at a point, by the plan. First match wins.
//!
//! An answer depends only on the plan, the device, queue, ordinal and point of the request, on what the ledger holds
//! and which gates are open: never on a clock or a shared random stream. `times` counts matches in the order in which
//! they are asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hold::Ledger;
use crate::trace::event::{
    FRAME_SIZE, Fetch, GuestRange, Operation, Planted, Point, Status, Until,
};

use super::gate::Gates;
use super::plan::{HoldUntil, Plan, Rule, Span};
use super::validate::PlanError;

/// Who decides.
#[derive(Debug)]
pub struct Injector {
    seed: u64,
    rules: Vec<Arc<Armed>>,
    ledger: Arc<Ledger>,
    gates: Arc<Gates>,
}

/// A rule and how often it matched.
#[derive(Debug)]
struct Armed {
    title: String,
    rule: Rule,
    matches: AtomicU64,
}

/// The rules that may concern one device, by point, so that a device without any asks nobody.
#[derive(Debug, Clone, Default)]
pub struct DeviceRules {
    by_point: [Vec<Arc<Armed>>; 3],
}

/// A request at a point.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Name of its device.
    pub device: &'a str,
    /// What it asks for.
    pub operation: Operation,
    /// Its first sector.
    pub sector: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Count of requests that its queue fetched before.
    pub ordinal: u64,
    /// The frames that it holds.
    pub ranges: &'a [GuestRange],
    /// Where it is.
    pub point: Point,
}

/// What a rule wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Name of the rule.
    pub rule: String,
    /// Park it.
    pub hold: Option<HoldUntil>,
    /// Fail it.
    pub fail: Option<Status>,
    /// Read the payload now or later.
    pub fetch: Option<Fetch>,
    /// Be wrong on purpose.
    pub planted: Option<Planted>,
}

impl DeviceRules {
    /// Whether no rule is asked at a point.
    #[inline]
    pub(crate) fn is_empty_at(&self, point: Point) -> bool {
        self.by_point[index(point)].is_empty()
    }
}

impl Injector {
    /// Acts on `plan`.
    ///
    /// # Errors
    /// The plan has a rule that cannot be meant.
    pub fn new(plan: Plan, ledger: Arc<Ledger>, gates: Arc<Gates>) -> Result<Self, PlanError> {
        plan.check()?;
        let arm = |(index, rule): (usize, Rule)| {
            Arc::new(Armed {
                title: rule.title(index),
                rule,
                matches: AtomicU64::new(0),
            })
        };
        Ok(Self {
            seed: plan.seed,
            rules: plan.rules.into_iter().enumerate().map(arm).collect(),
            ledger,
            gates,
        })
    }

    /// The seed of the plan.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The rules that may concern a device.
    #[must_use]
    pub fn for_device(&self, device: &str) -> DeviceRules {
        let mut rules = DeviceRules::default();
        for armed in &self.rules {
            if armed
                .rule
                .device
                .as_deref()
                .is_none_or(|name| name == device)
            {
                rules.by_point[index(armed.rule.asked_at())].push(armed.clone());
            }
        }
        rules
    }

    /// Asks the rules of a device about one of its requests.
    #[inline]
    #[must_use]
    pub fn decide(&self, rules: &DeviceRules, query: &Query<'_>) -> Option<Decision> {
        let rules = &rules.by_point[index(query.point)];
        if rules.is_empty() {
            return None;
        }
        rules.iter().find_map(|armed| self.ask(armed, query))
    }

    /// Names of the rules that never matched, in the order of the plan.
    #[must_use]
    pub fn unmatched(&self) -> Vec<String> {
        let idle = |armed: &&Arc<Armed>| armed.matches.load(Ordering::Relaxed) == 0;
        let rules = self.rules.iter().filter(idle);
        rules.map(|armed| armed.title.clone()).collect()
    }

    fn ask(&self, armed: &Armed, query: &Query<'_>) -> Option<Decision> {
        let rule = &armed.rule;
        let matches = self.matches(rule, query) && armed.count();
        matches.then(|| Decision {
            rule: armed.title.clone(),
            hold: rule.hold.clone(),
            fail: rule.fail,
            fetch: rule.fetch,
            planted: rule.planted,
        })
    }

    fn matches(&self, rule: &Rule, query: &Query<'_>) -> bool {
        let sectors = (query.sector, query.bytes.div_ceil(512));
        let contains = |span: Span| span.from <= query.ordinal && query.ordinal < span.to;
        let covers = |span: Span| {
            sectors.1 > 0 && sectors.0 < span.to && span.from < sectors.0.saturating_add(sectors.1)
        };
        // A hold that waits for a shared frame would never end for a request that has none.
        let can_be_held =
            !(matches!(rule.hold, Some(HoldUntil::SameFrame(_))) && query.ranges.is_empty());
        let planted_fits =
            rule.planted != Some(Planted::LyingFlush) || query.operation == Operation::Flush;

        rule.operation
            .is_none_or(|operation| operation == query.operation)
            && rule.sectors.is_none_or(covers)
            && rule.ordinals.is_none_or(contains)
            && rule
                .frame
                .is_none_or(|addr| covers_frame(query.ranges, addr))
            && can_be_held
            && planted_fits
            && rule
                .after_gate
                .as_deref()
                .is_none_or(|gate| self.gates.is_open(gate))
            && rule
                .shares_frame_with
                .as_deref()
                .is_none_or(|device| self.shares_frame(device, query))
    }

    fn shares_frame(&self, device: &str, query: &Query<'_>) -> bool {
        let own = if device == query.device {
            query.ranges
        } else {
            &[]
        };
        self.ledger.shares_frame(device, query.ranges, own)
    }
}

impl Armed {
    /// Counts a match; `false` when the rule has acted as often as it may.
    fn count(&self) -> bool {
        let limit = self.rule.times.unwrap_or(u64::MAX);
        let next = |matches: u64| (matches < limit).then(|| matches + 1);
        self.matches
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}

impl Decision {
    /// What it does, in words.
    #[must_use]
    pub fn action(&self) -> String {
        let mut words = Vec::new();
        if let Some(fetch) = self.fetch {
            words.push(match fetch {
                Fetch::Early => "fetch early".to_owned(),
                Fetch::Late => "fetch late".to_owned(),
            });
        }
        if let Some(hold) = &self.hold {
            words.push(match hold {
                HoldUntil::Gate(gate) => format!("hold until gate {gate}"),
                HoldUntil::SameFrame(same) => {
                    let device = same.device.as_deref().unwrap_or("any");
                    format!(
                        "hold until a request of {device} on the same frame is {}",
                        word(same.point)
                    )
                }
                HoldUntil::ForMs(ms) => format!("hold for {ms} ms"),
            });
        }
        if let Some(status) = self.fail {
            words.push(match status {
                Status::Ok => "answer ok".to_owned(),
                Status::Ioerr => "fail with ioerr".to_owned(),
                Status::Unsupp => "fail with unsupp".to_owned(),
            });
        }
        if let Some(planted) = self.planted {
            words.push(match planted {
                Planted::TouchAfterCompletion => "plant touch-after-completion".to_owned(),
                Planted::LyingFlush => "plant lying-flush".to_owned(),
                Planted::DroppedCompletion => "plant dropped-completion".to_owned(),
            });
        }
        if words.is_empty() {
            words.push("verify".to_owned());
        }
        words.join(", ")
    }
}

impl From<&HoldUntil> for Until {
    fn from(hold: &HoldUntil) -> Self {
        match hold {
            HoldUntil::Gate(gate) => Self::Gate(gate.clone()),
            HoldUntil::SameFrame(same) => Self::SameFrame {
                point: same.point,
                device: same.device.clone(),
            },
            HoldUntil::ForMs(ms) => Self::Duration {
                ns: ms.saturating_mul(1_000_000),
            },
        }
    }
}

fn covers_frame(ranges: &[GuestRange], addr: u64) -> bool {
    let frame = addr / FRAME_SIZE;
    ranges
        .iter()
        .flat_map(|range| range.frames())
        .any(|other| other == frame)
}

fn index(point: Point) -> usize {
    match point {
        Point::Fetched => 0,
        Point::Executed => 1,
        Point::Completed => 2,
    }
}

fn word(point: Point) -> &'static str {
    match point {
        Point::Fetched => "fetched",
        Point::Executed => "executed",
        Point::Completed => "completed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Tracer;
    use crate::trace::event::Direction;

    struct Setup {
        injector: Injector,
        ledger: Arc<Ledger>,
        gates: Arc<Gates>,
    }

    fn setup(text: &str) -> Setup {
        let plan = Plan::parse(text, std::path::Path::new("plan.toml")).unwrap();
        let ledger = Arc::new(Ledger::default());
        let gates = Arc::new(Gates::new(Arc::new(Tracer::new())));
        let injector = Injector::new(plan, ledger.clone(), gates.clone()).unwrap();
        Setup {
            injector,
            ledger,
            gates,
        }
    }

    const PAGE: [GuestRange; 1] = [GuestRange {
        addr: 0x5000,
        len: 4096,
    }];

    fn read(device: &str) -> Query<'_> {
        Query {
            device,
            operation: Operation::Read,
            sector: 8,
            bytes: 4096,
            ordinal: 3,
            ranges: &PAGE,
            point: Point::Fetched,
        }
    }

    fn rule_for(setup: &Setup, query: &Query<'_>) -> Option<String> {
        let rules = setup.injector.for_device(query.device);
        setup
            .injector
            .decide(&rules, query)
            .map(|decision| decision.rule)
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let setup = setup(
            "[[rule]]\nname = \"write\"\noperation = \"write\"\nverify = true\n\
             [[rule]]\nname = \"first\"\ndevice = \"b\"\nverify = true\n\
             [[rule]]\nname = \"second\"\nverify = true\n",
        );
        assert_eq!(rule_for(&setup, &read("b")).as_deref(), Some("first"));
        assert_eq!(rule_for(&setup, &read("a")).as_deref(), Some("second"));
        let executed = Query {
            point: Point::Executed,
            ..read("b")
        };
        assert_eq!(rule_for(&setup, &executed), None);
        assert_eq!(setup.injector.unmatched(), ["write"]);
    }

    #[test]
    fn every_condition_has_to_hold() {
        let matches = |condition: &str, query: &Query<'_>| {
            let setup = setup(&format!("[[rule]]\nverify = true\n{condition}\n"));
            rule_for(&setup, query).is_some()
        };
        let query = read("b");
        for (condition, expected) in [
            ("sectors = { from = 15, to = 16 }", true),
            ("sectors = { from = 16, to = 20 }", false),
            ("sectors = { from = 0, to = 8 }", false),
            ("ordinals = { from = 3, to = 4 }", true),
            ("ordinals = { from = 4, to = 9 }", false),
            ("frame = 0x5fff", true),
            ("frame = 0x6000", false),
            ("operation = \"read\"", true),
            ("operation = \"write\"", false),
            ("after-gate = \"g\"", false),
            ("shares-frame-with = \"a\"", false),
        ] {
            assert_eq!(matches(condition, &query), expected, "{condition}");
        }
        let flush = Query {
            operation: Operation::Flush,
            sector: 0,
            bytes: 0,
            ranges: &[],
            ..query
        };
        assert!(!matches("sectors = { from = 0, to = 8 }", &flush));
        assert!(!matches(
            "hold = { same-frame = { point = \"fetched\" } }",
            &flush
        ));
    }

    #[test]
    fn times_gates_and_shared_frames_are_looked_up() {
        let setup = setup(
            "[[rule]]\nname = \"once\"\ntimes = 1\nafter-gate = \"g\"\nverify = true\n\
             [[rule]]\nname = \"shared\"\nshares-frame-with = \"a\"\nverify = true\n",
        );
        assert_eq!(rule_for(&setup, &read("b")), None);
        setup.gates.open("g");
        assert_eq!(rule_for(&setup, &read("b")).as_deref(), Some("once"));
        assert_eq!(rule_for(&setup, &read("b")), None);

        let mut a = setup.ledger.shard("a", 64);
        let hold = a.open(Direction::ToDevice, &PAGE);
        assert_eq!(rule_for(&setup, &read("b")).as_deref(), Some("shared"));
        hold.complete(&mut a, &PAGE);
        assert_eq!(rule_for(&setup, &read("b")), None);
    }

    #[test]
    fn an_action_reads_as_words() {
        let setup = setup(
            "[[rule]]\nfetch = \"early\"\noperation = \"write\"\nhold = { gate = \"g\" }\nfail = \"ioerr\"\n",
        );
        let rules = setup.injector.for_device("a");
        let write = Query {
            operation: Operation::Write,
            ..read("a")
        };
        let decision = setup.injector.decide(&rules, &write).unwrap();
        assert_eq!(
            decision.action(),
            "fetch early, hold until gate g, fail with ioerr"
        );
    }
}
