//! The table against its naive twin: the same rules, every list searched from end to end, everybody
//! tried again until nothing changes. What people should see of each rule is in the golden scripts
//! (`tests/scripts/txn/locks`).

use super::*;
use proptest::prelude::*;
use proto::KeyRange;

const NOW: Timestamp = Timestamp::from_micros(1);

fn attempt(client: u64, seq: u64) -> Seniority {
    let first = TxnId { client, seq: 1 };
    let age = Age { start: Timestamp::from_micros(client), first };
    Seniority { age, attempt: Reverse(TxnId { client, seq }) }
}

#[derive(Default)]
struct Twin {
    known: BTreeMap<Seniority, bool>,
    held: Vec<(TxnId, Span, LockMode)>,
    waiting: BTreeMap<Rank, Vec<(Span, LockMode)>>,
}

impl Twin {
    fn who(&self, txn: TxnId) -> (Seniority, bool) {
        let found = self.known.iter().find(|(who, _)| who.txn() == txn);
        found.map(|(who, immune)| (*who, *immune)).expect("known")
    }

    fn request(&mut self, rank: Rank, spans: Vec<(Span, LockMode)>, changes: &mut Changes) {
        if !self.known.contains_key(&rank.who) {
            let of_one_age = self.known.keys().filter(|who| who.age == rank.who.age);
            let others: Vec<Seniority> = of_one_age.copied().collect();
            if others.iter().any(|other| *other < rank.who) {
                changes.wounded.push(rank.who.txn());
                return;
            }
            for other in others.iter().filter(|other| !self.known[other]).collect::<Vec<_>>() {
                self.remove(other.txn());
                changes.wounded.push(other.txn());
            }
            self.known.insert(rank.who, false);
        }
        self.waiting.insert(rank, spans);
        self.settle(changes);
    }

    fn remove(&mut self, txn: TxnId) {
        self.known.retain(|who, _| who.txn() != txn);
        self.waiting.retain(|rank, _| rank.who.txn() != txn);
        self.held.retain(|(holder, ..)| *holder != txn);
    }

    fn withdraw(&mut self, ticket: Ticket) {
        let rank = self.waiting.keys().find(|rank| rank.ticket == ticket).copied();
        let Some(Rank { who, .. }) = rank else { return };
        self.waiting.retain(|rank, _| rank.ticket != ticket);
        let holds = self.held.iter().any(|(holder, ..)| *holder == who.txn());
        if !holds && !self.waiting.keys().any(|rank| rank.who == who) {
            self.known.remove(&who);
        }
    }

    fn settle(&mut self, changes: &mut Changes) {
        loop {
            let before = (self.held.len(), self.waiting.len(), changes.wounded.len());
            for rank in self.waiting.keys().copied().collect::<Vec<_>>() {
                while self.waiting.get(&rank).is_some_and(|rest| !rest.is_empty()) {
                    let (span, mode) = self.waiting[&rank][0].clone();
                    if !self.take(rank, &span, mode, changes) {
                        break;
                    }
                    self.waiting.get_mut(&rank).expect("it waits").remove(0);
                }
                if self.waiting.get(&rank).is_some_and(Vec::is_empty) {
                    self.waiting.remove(&rank);
                    changes.granted.push((rank.who.txn(), rank.ticket));
                }
            }
            if before == (self.held.len(), self.waiting.len(), changes.wounded.len()) {
                return;
            }
        }
    }

    fn take(&mut self, rank: Rank, span: &Span, mode: LockMode, changes: &mut Changes) -> bool {
        let txn = rank.who.txn();
        let within = |outer: &Span| match (outer, span) {
            (_, Span::Range(range)) if range.is_empty() => true,
            (Span::Key(a), Span::Key(b)) => a == b,
            (Span::Key(_), Span::Range(_)) => false,
            (Span::Range(range), Span::Key(key)) => range.contains(key),
            (Span::Range(a), Span::Range(b)) => {
                let far = a.end.is_empty() || (!b.end.is_empty() && b.end <= a.end);
                a.start <= b.start && far
            }
        };
        let mine = self.held.iter().filter(|(holder, ..)| *holder == txn);
        if mine.clone().any(|(_, held, m)| within(held) && covers(*m, mode))
            || matches!(span, Span::Range(range) if range.is_empty())
        {
            return true;
        }
        let conflicts = |held: &Span, m: LockMode| conflict(m, mode) && held.overlaps(span);
        let mut free = true;
        for (other, held, m) in self.held.clone() {
            if other == txn || !conflicts(&held, m) || !self.held.iter().any(|h| h.0 == other) {
                continue;
            }
            let (who, immune) = self.who(other);
            if rank.who < who && !immune {
                self.remove(other);
                changes.wounded.push(other);
            } else {
                if rank.who < who {
                    changes.hindering.insert(other);
                }
                free = false;
            }
        }
        let ahead = |(other, rest): (&Rank, &Vec<(Span, LockMode)>)| {
            other.who < rank.who && rest.first().is_some_and(|(s, m)| conflicts(s, *m))
        };
        if !free || self.waiting.iter().any(ahead) {
            return false;
        }
        self.held.retain(|(holder, held, _)| *holder != txn || held != span);
        self.held.push((txn, span.clone(), mode));
        true
    }

    fn hinders_senior(&self, txn: TxnId) -> bool {
        self.held.iter().filter(|(holder, ..)| *holder == txn).any(|(_, held, m)| {
            self.waiting.iter().any(|(rank, rest)| {
                let (span, mode) = &rest[0];
                rank.who < self.who(txn).0 && conflict(*m, *mode) && held.overlaps(span)
            })
        })
    }
}

impl LockTable {
    /// The invariants of the type.
    fn check(&self) {
        let mut held = 0;
        for (place, holders) in self.held.iter() {
            held += holders.len();
            for (txn, lock) in holders {
                assert!(self.owners[txn].held.contains(&place.span()));
                for (_, others) in self.held.overlapping(&place.span()) {
                    let mut others = others.iter().filter(|(other, _)| *other != txn);
                    assert!(others.all(|(_, other)| !conflict(other.mode, lock.mode)));
                }
            }
        }
        assert_eq!(held, self.owners.values().map(|owner| owner.held.len()).sum::<usize>());
        let mut queued = 0;
        for (place, queue) in self.queues.iter() {
            assert!(!queue.is_empty());
            queued += queue.len();
            for (rank, mode) in queue {
                let waiting = &self.waiting[&rank.ticket];
                assert_eq!(waiting.rest.last(), Some(&(place.span(), *mode)));
                assert!(waiting.queued && waiting.rank == *rank);
                assert!(self.owners[&rank.who.txn()].tickets.contains(&rank.ticket));
            }
        }
        assert_eq!(queued, self.waiting.len());
        assert_eq!(queued, self.owners.values().map(|owner| owner.tickets.len()).sum::<usize>());
        let attempts: BTreeSet<Seniority> = self.owners.values().map(|owner| owner.who).collect();
        assert_eq!(attempts, self.attempts);
    }

    /// What is held and who waits for what, as the twin would say it.
    fn state(&self) -> (BTreeSet<String>, BTreeSet<(TxnId, Ticket, String)>) {
        let held = self.held.iter().flat_map(|(place, holders)| {
            let span = place.span();
            holders.iter().map(move |(txn, l)| format!("{txn} {span:?} {:?}", l.mode))
        });
        let waiting = self.waiting.values().map(|waiting| {
            (waiting.rank.who.txn(), waiting.rank.ticket, format!("{:?}", waiting.rest.last()))
        });
        (held.collect(), waiting.collect())
    }
}

impl Twin {
    fn state(&self) -> (BTreeSet<String>, BTreeSet<(TxnId, Ticket, String)>) {
        let held = self.held.iter().map(|(txn, span, mode)| format!("{txn} {span:?} {mode:?}"));
        let waiting = self.waiting.iter();
        let waiting =
            waiting.map(|(rank, r)| (rank.who.txn(), rank.ticket, format!("{:?}", r.first())));
        (held.collect(), waiting.collect())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ask {
        client: u64,
        spans: Vec<(Span, LockMode)>,
    },
    /// The client leaves its attempt and begins another one with its next request.
    Retry(u64),
    /// A request of the attempt before, late.
    Late {
        client: u64,
        span: (Span, LockMode),
    },
    Release(u64),
    /// Prepared: only what waits for nothing, as the manager does.
    Immune(u64),
    Withdraw(Ticket),
}

fn any_lock() -> impl Strategy<Value = (Span, LockMode)> {
    let key = |n: u8| Key::from(vec![b'a' + n]);
    let mode = prop_oneof![Just(LockMode::Shared), Just(LockMode::Exclusive)];
    (0u8..6, 0u8..6, any::<bool>(), mode).prop_map(move |(start, width, to_end, mode)| {
        let range = |end| Span::Range(KeyRange { start: key(start), end });
        let span = match width {
            0 | 1 => Span::Key(key(start)),
            2 if to_end => range(Key::new()),
            2 => range(key(start)), // empty
            width => range(key(start + width - 2)),
        };
        (span, mode)
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let client = || 1u64..8;
    let spans = proptest::collection::vec(any_lock(), 1..4);
    prop_oneof![
        8 => (client(), spans).prop_map(|(client, spans)| Step::Ask { client, spans }),
        1 => client().prop_map(Step::Retry),
        1 => (client(), any_lock()).prop_map(|(client, span)| Step::Late { client, span }),
        2 => client().prop_map(Step::Release),
        1 => client().prop_map(Step::Immune),
        1 => (1u64..60).prop_map(Step::Withdraw),
    ]
}

/// The table and its twin, told the same.
#[derive(Default)]
struct Both {
    table: LockTable,
    twin: Twin,
    ticket: Ticket,
    seqs: BTreeMap<u64, u64>,
}

impl Both {
    fn seq(&mut self, client: u64) -> u64 {
        *self.seqs.entry(client).or_insert(2)
    }

    fn ask(&mut self, who: Seniority, spans: Vec<(Span, LockMode)>) -> (Changes, Changes) {
        let (mut found, mut expected) = (Changes::default(), Changes::default());
        self.ticket += 1;
        let rank = Rank { who, ticket: self.ticket };
        self.table.request(self.ticket, who.txn(), who.age, spans.clone(), NOW, &mut found);
        self.twin.request(rank, spans, &mut expected);
        (found, expected)
    }

    /// Who is prepared has all its locks, and asks for none.
    fn is_immune(&self, who: Seniority) -> bool {
        self.twin.known.get(&who).is_some_and(|immune| *immune)
    }

    fn release(&mut self, txn: TxnId) -> (Changes, Changes) {
        let (mut found, mut expected) = (Changes::default(), Changes::default());
        self.table.release(txn, NOW, &mut found);
        self.twin.remove(txn);
        self.twin.settle(&mut expected);
        (found, expected)
    }

    fn step(&mut self, step: Step) -> (Changes, Changes) {
        match step {
            Step::Ask { client, spans } => {
                let who = attempt(client, self.seq(client));
                if !self.is_immune(who) {
                    return self.ask(who, spans);
                }
            }
            Step::Late { client, span } => {
                let who = attempt(client, self.seq(client) - 1);
                if !self.is_immune(who) {
                    return self.ask(who, vec![span]);
                }
            }
            Step::Retry(client) => {
                let seq = self.seq(client);
                self.seqs.insert(client, seq + 1);
            }
            Step::Release(client) => {
                let seq = self.seq(client);
                return self.release(attempt(client, seq).txn());
            }
            Step::Immune(client) => {
                let who = attempt(client, self.seq(client));
                let waits = self.twin.waiting.keys().any(|rank| rank.who == who);
                if let Some(immune) = self.twin.known.get_mut(&who).filter(|_| !waits) {
                    *immune = true;
                    self.table.make_immune(who.txn());
                }
            }
            Step::Withdraw(ticket) => {
                let (mut found, mut expected) = (Changes::default(), Changes::default());
                self.table.withdraw(ticket, NOW, &mut found);
                self.twin.withdraw(ticket);
                self.twin.settle(&mut expected);
                return (found, expected);
            }
        }
        Default::default()
    }

    /// The table did what the twin did, and no more work than it had to.
    fn compare(&self, tries: u64, (found, mut expected): (Changes, Changes)) {
        self.table.check();
        assert_eq!(self.table.state(), self.twin.state());
        let known: Vec<Seniority> = self.twin.known.keys().copied().collect();
        assert_eq!(self.table.attempts.iter().copied().collect::<Vec<_>>(), known);
        let set = |txns: &[TxnId]| txns.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(set(&found.wounded), set(&expected.wounded));
        assert_eq!(set(&found.wounded).len(), found.wounded.len(), "wounded once");
        let granted: BTreeSet<TxnId> = found.granted.iter().map(|(txn, _)| *txn).collect();
        assert!(granted.is_disjoint(&set(&found.wounded)), "nobody is woken to be wounded");
        let mut grants = found.granted.clone();
        grants.sort_unstable();
        expected.granted.sort_unstable();
        assert_eq!(grants, expected.granted);
        // The twin tries everybody all the time, so it meets all that hinder; the table tells only
        // of those whom somebody met who was tried.
        assert!(found.hindering.is_subset(&expected.hindering));
        for txn in self.twin.known.keys().map(Seniority::txn) {
            assert_eq!(self.table.hinders_senior(txn), self.twin.hinders_senior(txn));
        }
        // Bounded work: who comes, who is granted or gets on, and of each queue the one who stays.
        let queues = self.table.queues.iter().count() as u64;
        let freed = 1 + found.wounded.len() as u64;
        let tried = self.table.tries() - tries;
        let moved = 4 * (found.granted.len() as u64 + queues) + 1;
        assert!(tried <= moved * freed, "{tried} tries");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The table does what its naive twin does. When everyone who waits for nothing releases, again
    /// and again, nobody is left: no deadlock, nobody waits for ever.
    #[test]
    fn does_what_its_naive_twin_does(steps in proptest::collection::vec(any_step(), 1..60)) {
        let mut both = Both::default();
        for step in steps {
            let tries = both.table.tries();
            let changes = both.step(step);
            both.compare(tries, changes);
        }
        while both.table.transactions() > 0 {
            let waits = |owner: &Owner| !owner.tickets.is_empty() && !owner.immune;
            let done = both.table.owners.iter().find(|(_, owner)| !waits(owner));
            let Some((done, _)) = done else { return Err(TestCaseError::fail("deadlock")) };
            let (done, tries) = (*done, both.table.tries());
            let changes = both.release(done);
            both.compare(tries, changes);
        }
        prop_assert_eq!(both.table.waiting(), 0);
    }

    /// However many want to write one key, and in whatever order they came: each release wakes one,
    /// the most senior, and tries nobody but it and the next.
    #[test]
    fn one_wake_up_per_release(clients in proptest::collection::btree_set(2u64..1_000, 1..80),
                               seed in any::<u64>()) {
        let mut order: Vec<u64> = clients.iter().copied().collect();
        order.sort_by_key(|n| n.wrapping_mul(seed | 1));
        let mut both = Both::default();
        let wanted = || vec![(Span::Key(Key::from_static(b"hot")), LockMode::Exclusive)];
        both.ask(attempt(1, 2), wanted());
        for client in order {
            both.ask(attempt(client, 2), wanted());
        }
        let mut holder = 1;
        for client in clients {
            let tries = both.table.tries();
            let (found, _) = both.release(attempt(holder, 2).txn());
            prop_assert!(found.wounded.is_empty());
            let woken: Vec<TxnId> = found.granted.iter().map(|(txn, _)| *txn).collect();
            prop_assert_eq!(woken, vec![attempt(client, 2).txn()]);
            prop_assert!(both.table.tries() - tries <= 2);
            holder = client;
        }
    }
}

#[test]
fn a_release_does_not_try_those_who_wait_elsewhere() {
    let mut both = Both::default();
    let wanted = |n: u64| vec![(Span::Key(Key::from(n.to_string())), LockMode::Exclusive)];
    for n in 1..=200 {
        both.ask(attempt(n, 2), wanted(n % 100));
    }
    let tries = both.table.tries();
    both.release(attempt(1, 2).txn());
    assert_eq!(both.table.tries() - tries, 1);
    assert_eq!(both.table.waiting(), 99);
}

#[test]
fn a_transaction_counts_each_lock_once() {
    let mut both = Both::default();
    let key = |k: &'static str| (Span::Key(Key::from_static(k.as_bytes())), LockMode::Shared);
    let who = attempt(1, 2);
    both.ask(who, vec![key("a"), key("b")]);
    assert!(both.table.fits(who.txn(), &[key("a"), key("b"), key("c")], 3));
    assert!(!both.table.fits(who.txn(), &[key("c"), key("d")], 3));
    assert!(!both.table.fits(attempt(2, 2).txn(), &[key("a"), key("b")], 1));
    // The pages of a scan are one lock.
    let page = |start: &'static str| {
        let range = KeyRange { start: Key::from_static(start.as_bytes()), end: Key::new() };
        (Span::Range(range), LockMode::Shared)
    };
    both.ask(who, vec![page("m"), page("n"), page("o"), key("p")]);
    assert_eq!(both.table.owners[&who.txn()].held.len(), 3);
}

#[test]
fn a_report_has_bounded_room() {
    let mut both = Both::default();
    for n in 1..=9 {
        let span = Span::Key(Key::from(format!("k{n}")));
        both.ask(attempt(n, 2), vec![(span, LockMode::Exclusive)]);
    }
    let report = both.table.report(4);
    assert_eq!((report.spans.len(), report.omitted, report.transactions), (4, 5, 9));
    assert!(report.to_string().ends_with("transactions: 9, waiting: 0, more spans: 5"), "{report}");
}
