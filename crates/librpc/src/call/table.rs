//! The calls of a client, by number.
//!
//! Invariant: a call is at the place that the lowest bits of its number say, and no two are at one place: a number is only given where its
//! place is free. So a call is found without a search, and in the steady state nothing is allocated.

/// How many places there are at first.
const FEWEST: usize = 4;

/// Values by numbers that this gives.
#[derive(Debug)]
pub(super) struct Table<T> {
    /// Their count is a power of two, or 0.
    places: Vec<Option<(u64, T)>>,
    len: usize,
    last: u64,
}

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), len: 0, last: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn place(&self, number: u64) -> usize {
        number as usize & self.places.len().wrapping_sub(1)
    }

    /// The number of the value that is inserted next. It is greater than that of all before.
    pub(super) fn next_number(&mut self) -> u64 {
        if 2 * self.len >= self.places.len() {
            self.grow();
        }
        let mut number = self.last + 1;
        while self.places[self.place(number)].is_some() {
            number += 1;
        }
        number
    }

    #[cold]
    fn grow(&mut self) {
        let places = (2 * self.places.len()).max(FEWEST);
        let before = std::mem::take(&mut self.places);
        self.places.resize_with(places, || None);
        for (number, value) in before.into_iter().flatten() {
            let place = self.place(number);
            self.places[place] = Some((number, value));
        }
    }

    /// Inserts a value under its [next number](Table::next_number).
    pub(super) fn insert(&mut self, number: u64, value: T) {
        let place = self.place(number);
        debug_assert!(self.places[place].is_none(), "a number is only given where its place is free");
        self.places[place] = Some((number, value));
        self.len += 1;
        self.last = number;
    }

    #[inline(always)]
    pub(super) fn get(&self, number: u64) -> Option<&T> {
        match self.places.get(self.place(number))? {
            Some((found, value)) if *found == number => Some(value),
            _ => None,
        }
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let place = self.place(number);
        match self.places.get_mut(place)? {
            Some((found, value)) if *found == number => Some(value),
            _ => None,
        }
    }

    /// Removes a value. What is still of use, `take` takes out of it, so that not all of it is moved.
    pub(super) fn remove<U>(&mut self, number: u64, take: impl FnOnce(&mut T) -> U) -> Option<U> {
        let taken = take(self.get_mut(number)?);
        let place = self.place(number);
        self.places[place] = None;
        self.len -= 1;
        Some(taken)
    }

    /// All values, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.places.iter().flatten().map(|(number, value)| (*number, value))
    }

    /// All values, in the order of their numbers.
    pub(super) fn in_order(&mut self) -> Vec<(u64, &mut T)> {
        let mut all: Vec<_> = self.places.iter_mut().flatten().map(|(number, value)| (*number, value)).collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is removed when, each value is found under its number, and numbers only grow.
        #[test]
        fn a_value_is_found_under_its_number(steps in proptest::collection::vec(any::<Option<u8>>(), 0..300)) {
            let (mut table, mut expected) = (Table::new(), std::collections::BTreeMap::new());
            let mut last = 0;
            for step in steps {
                match step {
                    None => {
                        let number = table.next_number();
                        prop_assert!(number > last);
                        last = number;
                        table.insert(number, number * 10);
                        expected.insert(number, number * 10);
                    }
                    Some(at) => {
                        let number = expected.keys().nth(usize::from(at) % expected.len().max(1)).copied().unwrap_or(7);
                        prop_assert_eq!(table.remove(number, |value| *value), expected.remove(&number));
                    }
                }
                prop_assert_eq!(table.len(), expected.len());
                prop_assert!((0..last + 9).all(|number| table.get(number) == expected.get(&number)));
                let all: Vec<_> = table.in_order().into_iter().map(|(number, value)| (number, *value)).collect();
                prop_assert_eq!(all, expected.clone().into_iter().collect::<Vec<_>>());
            }
        }
    }
}
