//! The network and the inputs of DIN's local activation unit.

use crate::element::Element;
use crate::memory::{Memory, View};
use crate::ops::shape::copy_views;

/// The activation after a hidden layer of `h` units; `V` is a view of `f32`s on the device.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Activation<V> {
    /// `max(x, 0)`.
    Relu,
    /// `σ(x)`.
    Sigmoid,
    /// `max(x, 0) + α·min(x, 0)`.
    Prelu {
        /// `[1]` or `[h]`.
        alpha: V,
    },
    /// `x·(p + α(1 − p))` with `p = σ(gain·x + shift)`: Dice in inference form. [`fold_dice`](crate::fold_dice) computes `gain` and `shift`.
    Dice {
        /// `[h]`: `γ/√(var + ε)`.
        gain: V,
        /// `[h]`: `β − mean·γ/√(var + ε)`.
        shift: V,
        /// `[h]`.
        alpha: V,
    },
}

impl<V> Activation<V> {
    /// The same activation with each of its vectors mapped.
    pub fn map<W>(self, mut vector: impl FnMut(V) -> W) -> Activation<W> {
        match self {
            Self::Relu => Activation::Relu,
            Self::Sigmoid => Activation::Sigmoid,
            Self::Prelu { alpha } => Activation::Prelu { alpha: vector(alpha) },
            Self::Dice { gain, shift, alpha } => {
                Activation::Dice { gain: vector(gain), shift: vector(shift), alpha: vector(alpha) }
            }
        }
    }
}

/// One hidden layer of `h` units with `i` inputs: the units of the layer before it, or `4d` for the first layer.
#[non_exhaustive]
pub struct DinLayer<'a, S: Memory, T: Element> {
    /// `[h, i]`, PyTorch's layout; the columns of the first layer are in the order `[q ; s ; q − s ; q ⊙ s]`.
    pub weight: View<'a, S, T>,
    /// `[h]`; its length is the number of units of the layer.
    pub bias: View<'a, S, f32>,
    /// The activation after the layer.
    pub activation: Activation<View<'a, S, f32>>,
}

/// The inputs of the unit.
#[non_exhaustive]
pub struct DinInputs<'a, S: Memory, T: Element> {
    /// `[M, d]`, one row per candidate.
    pub targets: View<'a, S, T>,
    /// `[N, d]`, one row per behaviour.
    pub history: View<'a, S, T>,
    /// One to three hidden layers.
    pub hidden: &'a [DinLayer<'a, S, T>],
    /// `[1, h]`, where `h` is the number of units of the last hidden layer.
    pub output_weight: View<'a, S, T>,
    /// `[1]`.
    pub output_bias: View<'a, S, f32>,
}

copy_views!(DinLayer<T>, DinInputs<T>);

impl<'a, S: Memory, T: Element> DinLayer<'a, S, T> {
    /// A layer of `bias.len()` units.
    pub fn new(
        weight: View<'a, S, T>,
        bias: View<'a, S, f32>,
        activation: Activation<View<'a, S, f32>>,
    ) -> Self {
        Self { weight, bias, activation }
    }
}

impl<'a, S: Memory, T: Element> DinInputs<'a, S, T> {
    /// Candidates, behaviours, and the network that scores their pairs.
    pub fn new(
        targets: View<'a, S, T>,
        history: View<'a, S, T>,
        hidden: &'a [DinLayer<'a, S, T>],
        output_weight: View<'a, S, T>,
        output_bias: View<'a, S, f32>,
    ) -> Self {
        Self { targets, history, hidden, output_weight, output_bias }
    }
}
