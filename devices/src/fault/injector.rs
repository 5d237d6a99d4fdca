//! Decides what happens to a request at a point, by the plan. First match wins.
//!
//! An answer depends only on the plan, the request and the point, on what the ledger holds, which gates are open and which
//! steps of the guest are under way: never on a clock or a shared random stream. `times` counts matches in the order in
//! which they are asked for.
//!
//! The plan may be replaced, and rules disarmed, while devices run: a device that no rule concerns learns so from one
//! number. A request that was decided about keeps its decision.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use crate::hold::Ledger;
use crate::trace::event::{GuestRange, Operation, Point};

use super::condition::Condition;
use super::decision::Decision;
use super::draw::Subject;
use super::gate::Gates;
use super::marks::Marks;
use super::plan::{Plan, Rule};
use super::validate::PlanError;

/// Who decides.
#[derive(Debug)]
pub struct Injector {
    rules: RwLock<Rules>,
    /// The rules of each device that asked for them, to be told of another plan.
    devices: Mutex<Vec<(String, Weak<Cell>)>>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) gates: Arc<Gates>,
    pub(super) marks: Marks,
}

#[derive(Debug, Default)]
struct Rules {
    seed: u64,
    all: Vec<Arc<Armed>>,
}

/// A rule and how often it matched.
#[derive(Debug)]
struct Armed {
    seed: u64,
    title: String,
    rule: Rule,
    condition: Condition,
    armed: AtomicBool,
    matches: AtomicU64,
}

/// The rules that may concern one device, by point, so that a device without any asks nobody.
#[derive(Debug, Clone, Default)]
pub struct DeviceRules {
    cell: Arc<Cell>,
}

#[derive(Debug, Default)]
struct Cell {
    /// Bit of each [`Point`] where a rule is asked.
    points: AtomicU8,
    by_point: RwLock<[Vec<Arc<Armed>>; 3]>,
}

/// A request at a point.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Name of its device.
    pub device: &'a str,
    /// Index of its queue.
    pub queue: u16,
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

/// What has become of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleState {
    /// Its name.
    pub title: String,
    /// As it stands in the plan.
    pub rule: Rule,
    /// Whether it is asked at all.
    pub armed: bool,
    /// How often it matched.
    pub matches: u64,
}

impl DeviceRules {
    /// Whether no rule is asked at a point.
    #[inline]
    pub(crate) fn is_empty_at(&self, point: Point) -> bool {
        self.cell.points.load(Ordering::Acquire) & (1 << index(point)) == 0
    }
}

impl Injector {
    /// Acts on `plan`.
    ///
    /// # Errors
    /// The plan has a rule that cannot be meant.
    pub fn new(plan: Plan, ledger: Arc<Ledger>, gates: Arc<Gates>) -> Result<Self, PlanError> {
        plan.check()?;
        Ok(Self {
            rules: RwLock::new(arm(plan)),
            devices: Mutex::default(),
            ledger,
            gates,
            marks: Marks::default(),
        })
    }

    /// Acts on another plan from now on, for all devices; requests that are held stay held. Returns the names of the rules
    /// of the old plan that never matched.
    ///
    /// # Errors
    /// The new plan has a rule that cannot be meant; the old one stays.
    pub fn replace(&self, plan: Plan) -> Result<Vec<String>, PlanError> {
        plan.check()?;
        let unmatched = self.unmatched();
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        *rules = arm(plan);
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.retain(|(device, cell)| match cell.upgrade() {
            Some(cell) => {
                cell.fill(device, &rules.all);
                true
            }
            None => false,
        });
        Ok(unmatched)
    }

    /// Arms or disarms the rules of this name; a disarmed rule is as if it were not there. Returns how many there are.
    pub fn set_armed(&self, title: &str, armed: bool) -> usize {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let meant = rules.all.iter().filter(|rule| rule.title == title);
        meant
            .map(|rule| rule.armed.store(armed, Ordering::Release))
            .count()
    }

    /// The seed of the plan.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.rules
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .seed
    }

    /// The steps of the guest, for rules with `mark`.
    #[must_use]
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// The rules that may concern a device, now and after a replacement.
    #[must_use]
    pub fn for_device(&self, device: &str) -> DeviceRules {
        let rules = DeviceRules::default();
        let all = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.cell.fill(device, &all.all);
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.push((device.to_owned(), Arc::downgrade(&rules.cell)));
        rules
    }

    /// Asks the rules of a device about one of its requests.
    #[inline]
    #[must_use]
    pub fn decide(&self, rules: &DeviceRules, query: &Query<'_>) -> Option<Decision> {
        if rules.is_empty_at(query.point) {
            return None;
        }
        let by_point = rules.cell.by_point.read();
        let by_point = by_point.unwrap_or_else(PoisonError::into_inner);
        let mut asked = by_point[index(query.point)].iter();
        asked.find_map(|armed| self.ask(armed, query))
    }

    /// Names of the rules that never matched, in the order of the plan.
    #[must_use]
    pub fn unmatched(&self) -> Vec<String> {
        let states = self.states().into_iter();
        let idle = states.filter(|state| state.matches == 0);
        idle.map(|state| state.title).collect()
    }

    /// All rules, in the order of the plan.
    #[must_use]
    pub fn states(&self) -> Vec<RuleState> {
        let state = |armed: &Arc<Armed>| RuleState {
            title: armed.title.clone(),
            rule: armed.rule.clone(),
            armed: armed.armed.load(Ordering::Acquire),
            matches: armed.matches.load(Ordering::Relaxed),
        };
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        rules.all.iter().map(state).collect()
    }

    fn ask(&self, armed: &Armed, query: &Query<'_>) -> Option<Decision> {
        let subject = Subject {
            seed: armed.seed,
            device: query.device,
            queue: query.queue,
            ordinal: query.ordinal,
            point: query.point,
            rule: &armed.title,
        };
        let matches = armed.armed.load(Ordering::Acquire)
            && armed.rule.fits(query)
            && self.matches(&armed.condition, query, &subject)
            && armed.count();
        matches.then(|| Decision::of(&armed.rule, &subject))
    }
}

fn arm(plan: Plan) -> Rules {
    let seed = plan.seed;
    let arm = |(index, rule): (usize, Rule)| {
        Arc::new(Armed {
            seed,
            title: rule.title(index),
            condition: rule.condition(),
            rule,
            armed: AtomicBool::new(true),
            matches: AtomicU64::new(0),
        })
    };
    let all = plan.rules.into_iter().enumerate().map(arm).collect();
    Rules { seed, all }
}

impl Cell {
    /// Takes the rules that may concern a device.
    fn fill(&self, device: &str, rules: &[Arc<Armed>]) {
        let mut by_point: [Vec<Arc<Armed>>; 3] = Default::default();
        let mut points = 0;
        for armed in rules {
            let name = armed.rule.device.as_deref();
            if name.is_none_or(|name| name == device) {
                let point = index(armed.rule.asked_at());
                by_point[point].push(armed.clone());
                points |= 1 << point;
            }
        }
        *self
            .by_point
            .write()
            .unwrap_or_else(PoisonError::into_inner) = by_point;
        self.points.store(points, Ordering::Release);
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

fn index(point: Point) -> usize {
    match point {
        Point::Fetched => 0,
        Point::Executed => 1,
        Point::Completed => 2,
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
            queue: 0,
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
