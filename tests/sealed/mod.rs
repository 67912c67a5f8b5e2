//! Everything known beforehand: the same bytes from one lock, and nothing asked of a network.

mod offline;
mod rebuild;
mod variations;
