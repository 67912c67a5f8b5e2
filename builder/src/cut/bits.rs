//! Sets of small numbers.

/// A set of numbers below a limit that all sets of one cut share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bits(Box<[u64]>);

impl Bits {
    /// The empty set, for numbers below `limit`.
    pub fn new(limit: usize) -> Self {
        Self(vec![0; limit.div_ceil(64)].into())
    }

    /// Adds a number.
    pub fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    /// Whether a number is in it.
    pub fn contains(&self, number: usize) -> bool {
        self.0[number / 64] & (1 << (number % 64)) != 0
    }

    /// Whether all its numbers are in both others.
    pub fn is_within_both(&self, left: &Self, right: &Self) -> bool {
        self.0.iter().zip(&left.0).zip(&right.0).all(|((word, left), right)| word & !(left & right) == 0)
    }

    /// What is in all three.
    pub fn common(&self, second: &Self, third: &Self) -> Self {
        Self(
            self.0.iter().zip(&second.0).zip(&third.0).map(|((first, second), third)| first & second & third).collect(),
        )
    }

    /// How many numbers are in all three.
    pub fn count_common(&self, second: &Self, third: &Self) -> usize {
        let words = self.0.iter().zip(&second.0).zip(&third.0);
        words.map(|((first, second), third)| (first & second & third).count_ones() as usize).sum()
    }

    /// Takes away what is in the other.
    pub fn remove_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= !other);
    }

    /// Adds what is in the other.
    pub fn insert_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    /// Its numbers, the smallest first.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(place, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(place * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: &[usize]) -> Bits {
        let mut bits = Bits::new(200);
        numbers.iter().for_each(|number| bits.insert(*number));
        bits
    }

    #[test]
    fn sets_are_counted_compared_and_taken_apart() {
        let (left, right, all) = (of(&[1, 63, 64, 130]), of(&[63, 130]), of(&[1, 2, 63, 64, 130, 199]));
        assert_eq!(left.iter().collect::<Vec<_>>(), [1, 63, 64, 130]);
        assert!(left.contains(64) && !left.contains(65));
        assert!(right.is_within_both(&left, &all) && !left.is_within_both(&right, &all));
        assert_eq!((left.common(&right, &all), left.count_common(&right, &all)), (right.clone(), 2));
        let mut rest = left.clone();
        rest.remove_all(&right);
        assert_eq!(rest, of(&[1, 64]));
        rest.insert_all(&right);
        assert_eq!(rest, left);
    }
}
