//! The tests of long sums of equal numbers.

use super::{registry, run};

tests!(long_sums on cpu cuda webgpu: (
    a_chain_would_show,
    adds_up_attention_without_softmax,
    adds_up_gradients_of_attention,
    adds_up_din,
    adds_up_gradients_of_din,
    adds_up_selections,
    adds_up_gradients_of_selections,
    adds_up_channels,
    adds_up_gradients_of_channels,
));
