//! [`SpanMap`]: something for each span, and quickly all that overlaps a span.
//!
//! Keys lie in an ordered map. Ranges lie in a treap: a binary tree ordered by range, whose shape
//! comes from a priority drawn for each node, so that it is shallow whatever the order of arrival.
//! Each node knows the farthest end in its subtree; a search leaves out what ends too early.
//!
//! ```text
//!                   [d, f)  ..m          "..m": the farthest end below and here
//!                  /       \
//!          [a, c) ..m      [k, l) ..l    what overlaps [g, h)? Left, for something there reaches
//!               \                        m: [b, m). Not right: [k, l) begins too late.
//!              [b, m) ..m
//! ```

use proto::keys::Span;
use proto::{Key, KeyRange};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Invariants: no range in it is empty; a span is in it at most once.
#[derive(Debug)]
pub(super) struct SpanMap<V> {
    points: BTreeMap<Key, V>,
    root: Link<V>,
    /// What the next priority is made from.
    drawn: u64,
}

type Link<V> = Option<Box<Node<V>>>;

/// Invariants: what is `left` of it is smaller, `right` of it larger; no child has a higher
/// priority; `farthest` is the farthest end of it and of all below.
#[derive(Debug)]
struct Node<V> {
    range: KeyRange,
    value: V,
    priority: u64,
    farthest: Key,
    left: Link<V>,
    right: Link<V>,
}

/// A span in a map.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    Key(&'a Key),
    Range(&'a KeyRange),
}

impl Place<'_> {
    /// Whether all keys of the span lie in it.
    pub fn covers(&self, span: &Span) -> bool {
        match (self, span) {
            (Place::Key(key), Span::Key(k)) => *key == k,
            (Place::Key(_), Span::Range(_)) => false,
            (Place::Range(range), Span::Key(key)) => range.contains(key),
            (Place::Range(range), Span::Range(r)) => {
                range.start <= r.start && !ends_before(&range.end, &r.end)
            }
        }
    }

    pub fn span(&self) -> Span {
        match self {
            Place::Key(key) => Span::Key((*key).clone()),
            Place::Range(range) => Span::Range((*range).clone()),
        }
    }
}

/// Of two ends of ranges; the empty one is the farthest.
fn ends_before(a: &Key, b: &Key) -> bool {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => false,
        (false, true) => true,
        (false, false) => a < b,
    }
}

impl<V> Default for SpanMap<V> {
    fn default() -> Self {
        SpanMap { points: BTreeMap::new(), root: None, drawn: 0 }
    }
}

impl<V> SpanMap<V> {
    pub fn get(&self, span: &Span) -> Option<&V> {
        let range = match span {
            Span::Key(key) => return self.points.get(key),
            Span::Range(range) => range,
        };
        let mut link = &self.root;
        while let Some(node) = link {
            link = match range.cmp(&node.range) {
                Ordering::Less => &node.left,
                Ordering::Equal => return Some(&node.value),
                Ordering::Greater => &node.right,
            };
        }
        None
    }

    pub fn get_mut(&mut self, span: &Span) -> Option<&mut V> {
        let range = match span {
            Span::Key(key) => return self.points.get_mut(key),
            Span::Range(range) => range,
        };
        let mut link = &mut self.root;
        while let Some(node) = link {
            link = match range.cmp(&node.range) {
                Ordering::Less => &mut node.left,
                Ordering::Equal => return Some(&mut node.value),
                Ordering::Greater => &mut node.right,
            };
        }
        None
    }

    /// What is there for the span, made when nothing is.
    pub fn get_or_default(&mut self, span: &Span) -> &mut V
    where
        V: Default,
    {
        let range = match span {
            Span::Key(key) => return self.points.entry(key.clone()).or_default(),
            Span::Range(range) => range,
        };
        assert!(!range.is_empty(), "an empty range overlaps nothing and has no place here");
        if self.get(span).is_none() {
            self.drawn += 1;
            let node = Node {
                range: range.clone(),
                value: V::default(),
                priority: scramble(self.drawn),
                farthest: range.end.clone(),
                left: None,
                right: None,
            };
            insert(&mut self.root, Box::new(node));
        }
        self.get_mut(span).expect("it was there, or has just been inserted")
    }

    pub fn remove(&mut self, span: &Span) -> Option<V> {
        match span {
            Span::Key(key) => self.points.remove(key),
            Span::Range(range) => remove(&mut self.root, range),
        }
    }

    /// All that overlaps the span: keys, then ranges, each in order.
    pub fn overlapping<'a>(&'a self, span: &'a Span) -> impl Iterator<Item = (Place<'a>, &'a V)> {
        let (point, points) = match span {
            Span::Key(key) => (self.points.get_key_value(key), None),
            Span::Range(range) if range.is_empty() => (None, None),
            Span::Range(range) => {
                let end = match range.end.is_empty() {
                    true => Bound::Unbounded,
                    false => Bound::Excluded(&range.end),
                };
                (None, Some(self.points.range::<Key, _>((Bound::Included(&range.start), end))))
            }
        };
        let points = point.into_iter().chain(points.into_iter().flatten());
        points.map(|(key, value)| (Place::Key(key), value)).chain(Ranges::new(&self.root, span))
    }

    /// Everything: keys, then ranges, each in order.
    pub fn iter(&self) -> impl Iterator<Item = (Place<'_>, &V)> {
        self.points
            .iter()
            .map(|(key, value)| (Place::Key(key), value))
            .chain(Ranges::new(&self.root, &EVERYWHERE))
    }
}

static EVERYWHERE: Span = Span::Range(KeyRange { start: Key::new(), end: Key::new() });

/// A priority that does not depend on the order of arrival: one round of a well-known mixer.
fn scramble(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<V> Node<V> {
    /// Reckons `farthest` again after a child has changed.
    fn reckon(&mut self) {
        let mut farthest = &self.range.end;
        for child in [&self.left, &self.right].into_iter().flatten() {
            if ends_before(farthest, &child.farthest) {
                farthest = &child.farthest;
            }
        }
        if self.farthest != *farthest {
            self.farthest = farthest.clone();
        }
    }
}

fn insert<V>(link: &mut Link<V>, mut new: Box<Node<V>>) {
    match link {
        Some(node) if node.priority >= new.priority => {
            let side = if new.range < node.range { &mut node.left } else { &mut node.right };
            insert(side, new);
            node.reckon();
        }
        _ => {
            (new.left, new.right) = split(link.take(), &new.range);
            new.reckon();
            *link = Some(new);
        }
    }
}

/// What is smaller than the range, and what is larger.
fn split<V>(link: Link<V>, at: &KeyRange) -> (Link<V>, Link<V>) {
    let Some(mut node) = link else { return (None, None) };
    if node.range < *at {
        let (smaller, larger) = split(node.right.take(), at);
        node.right = smaller;
        node.reckon();
        (Some(node), larger)
    } else {
        let (smaller, larger) = split(node.left.take(), at);
        node.left = larger;
        node.reckon();
        (smaller, Some(node))
    }
}

/// One tree of two, all of `a` being smaller than all of `b`.
fn join<V>(a: Link<V>, b: Link<V>) -> Link<V> {
    match (a, b) {
        (None, rest) | (rest, None) => rest,
        (Some(mut a), Some(mut b)) => {
            if a.priority >= b.priority {
                a.right = join(a.right.take(), Some(b));
                a.reckon();
                Some(a)
            } else {
                b.left = join(Some(a), b.left.take());
                b.reckon();
                Some(b)
            }
        }
    }
}

fn remove<V>(link: &mut Link<V>, range: &KeyRange) -> Option<V> {
    let node = link.as_mut()?;
    let side = match range.cmp(&node.range) {
        Ordering::Less => &mut node.left,
        Ordering::Greater => &mut node.right,
        Ordering::Equal => {
            let node = *link.take()?;
            *link = join(node.left, node.right);
            return Some(node.value);
        }
    };
    let removed = remove(side, range);
    node.reckon();
    removed
}

/// The ranges that overlap a span, in order.
struct Ranges<'a, V> {
    span: &'a Span,
    /// Nodes whose left subtrees are done with, the next one last.
    stack: Vec<&'a Node<V>>,
}

impl<'a, V> Ranges<'a, V> {
    fn new(root: &'a Link<V>, span: &'a Span) -> Ranges<'a, V> {
        let mut ranges = Ranges { span, stack: Vec::new() };
        ranges.descend(root);
        ranges
    }

    /// To the smallest below that may overlap.
    fn descend(&mut self, mut link: &'a Link<V>) {
        while let Some(node) = link {
            if !node.farthest.is_empty() && node.farthest <= *self.span.start() {
                return; // all of it ends before the span begins
            }
            self.stack.push(node);
            link = &node.left;
        }
    }
}

impl<'a, V> Iterator for Ranges<'a, V> {
    type Item = (Place<'a>, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(node) = self.stack.pop() {
            let late = match self.span {
                Span::Key(key) => node.range.start > *key,
                Span::Range(range) => !range.end.is_empty() && node.range.start >= range.end,
            };
            if late {
                self.stack.clear(); // and all that would come after it
                return None;
            }
            self.descend(&node.right);
            let overlaps = match self.span {
                Span::Key(key) => node.range.contains(key),
                Span::Range(range) => node.range.overlaps(range),
            };
            if overlaps {
                return Some((Place::Range(&node.range), &node.value));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_key() -> impl Strategy<Value = Key> {
        proptest::collection::vec(0u8..4, 0..3).prop_map(Key::from)
    }

    fn any_span() -> impl Strategy<Value = Span> {
        prop_oneof![
            any_key().prop_map(Span::Key),
            (any_key(), any_key()).prop_map(|(start, end)| Span::Range(KeyRange { start, end })),
        ]
    }

    fn is_empty(span: &Span) -> bool {
        matches!(span, Span::Range(range) if range.is_empty())
    }

    /// The invariants of the tree; returns its depth.
    fn check<V>(link: &Link<V>) -> usize {
        let Some(node) = link else { return 0 };
        let mut farthest = &node.range.end;
        for child in [&node.left, &node.right].into_iter().flatten() {
            assert!(child.priority <= node.priority);
            if ends_before(farthest, &child.farthest) {
                farthest = &child.farthest;
            }
        }
        assert_eq!(node.farthest, *farthest);
        assert!(node.left.as_ref().is_none_or(|left| left.range < node.range));
        assert!(node.right.as_ref().is_none_or(|right| right.range > node.range));
        1 + check(&node.left).max(check(&node.right))
    }

    proptest! {
        /// The naive twin: a map of all spans, searched from end to end.
        #[test]
        fn finds_what_a_search_from_end_to_end_finds(
            steps in proptest::collection::vec((any_span(), any::<bool>(), any_span()), 1..80)
        ) {
            let mut map: SpanMap<usize> = SpanMap::default();
            let mut twin: BTreeMap<Span, usize> = BTreeMap::new();
            for (n, (span, add, wanted)) in steps.into_iter().enumerate() {
                if add && !is_empty(&span) {
                    *map.get_or_default(&span) = n;
                    twin.insert(span, n);
                } else {
                    prop_assert_eq!(map.remove(&span), twin.remove(&span));
                }
                check(&map.root);
                prop_assert_eq!(map.get(&wanted), twin.get(&wanted));
                let found: Vec<_> =
                    map.overlapping(&wanted).map(|(place, n)| (place.span(), *n)).collect();
                let expected: Vec<_> = twin
                    .iter()
                    .filter(|(span, _)| !is_empty(&wanted) && span.overlaps(&wanted))
                    .map(|(span, n)| (span.clone(), *n))
                    .collect();
                prop_assert_eq!(found, expected);
                prop_assert_eq!(map.iter().count(), twin.len());
            }
        }
    }

    #[test]
    fn stays_shallow_when_ranges_come_in_order() {
        let mut map: SpanMap<()> = SpanMap::default();
        for n in 0u32..10_000 {
            let key = |n: u32| Key::copy_from_slice(&n.to_be_bytes());
            map.get_or_default(&Span::Range(KeyRange { start: key(n), end: key(n + 1) }));
        }
        let depth = check(&map.root);
        assert!(depth < 60, "{depth} levels for 10,000 ranges");
    }
}
