//! A table whose numbers are never used twice.

/// Values by number.
#[derive(Debug)]
pub(super) struct Table<T> {
    slots: Vec<Option<T>>,
    /// The numbers of those that are there, in ascending order.
    there: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), there: Vec::new() }
    }
}

impl<T> Table<T> {
    /// Adds a value: its number.
    pub(super) fn add(&mut self, value: T) -> u32 {
        let number = self.slots.len() as u32;
        self.slots.push(Some(value));
        self.there.push(number);
        number
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.slots[number as usize].as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.slots[number as usize].as_mut()
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let removed = self.slots[number as usize].take()?;
        let at = self.there.binary_search(&number).expect("it was there");
        self.there.remove(at);
        Some(removed)
    }

    pub(super) fn len(&self) -> usize {
        self.there.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.there.iter().map(|&number| (number, self.get(number).expect("it is there")))
    }

    /// Calls `each` with every value.
    pub(super) fn for_each_mut(&mut self, mut each: impl FnMut(&mut T)) {
        for &number in &self.there {
            each(self.slots[number as usize].as_mut().expect("it is there"));
        }
    }
}
