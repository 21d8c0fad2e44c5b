//! From PyTorch: this call there, that here. Documentation only.
//!
//! Rows of all users are in one buffer, and offsets say whose they are: PyTorch's nested tensors of layout `torch.jagged` and TorchRec's
//! `JaggedTensor`. Nothing is padded, so there are no masks, and a history is not repeated for its user's candidates.
//!
//! # Data
//!
//! | in PyTorch | here |
//! |---|---|
//! | `nested_tensor_from_jagged(values, offsets)`, `JaggedTensor` | [`Jagged::new`](crate::Jagged::new)`(&offsets, rows)`; `values` stays as it is |
//! | `pad_sequence(rows, batch_first=True)` with lengths or a `key_padding_mask` | the rows without padding, and [`Jagged::from_lengths`](crate::Jagged::from_lengths) |
//! | `history.repeat_interleave(candidates_of_user, 0)` | nothing: a [`Batch`](crate::Batch) knows which candidates belong to which history |
//! | `rows[-200:]` of each user | [`Jagged::newest`](crate::Jagged::newest)`(200)`, without a copy |
//! | `x.to(device)`, `x.cpu()` | [`DeviceOps::upload`](crate::DeviceOps::upload), [`download`](crate::DeviceOps::download); on [`Cpu`](crate::Cpu) [`Host::view`](crate::Host::view), without a copy |
//! | `x.half()`, `x.bfloat16()` | [`half::f16`], [`half::bf16`]; what is added up is `f32` |
//! | a tensor's `data_ptr()` on CUDA | `Cuda::borrow` with a slice of cudarc's, on a stream of yours: `Cuda::from_stream` |
//! | `torch.cuda.synchronize()` | [`DeviceOps::synchronize`](crate::DeviceOps::synchronize) |
//!
//! # Layers
//!
//! | in PyTorch | here |
//! |---|---|
//! | `F.scaled_dot_product_attention(q, k, v)` | [`TargetAttention`](crate::TargetAttention), whose scale is `1/√d`, too, unless given; values that are not the keys with [`with_values`](crate::TargetAttentionInputs::with_values). Rows are `[M, H, d]` and `[N, H_kv, d]`: those before `.transpose(1, 2)` |
//! | the same with `attn_mask` a float per key | [`TargetAttentionInputs::with_bias`](crate::TargetAttentionInputs::with_bias); `-inf` removes a behaviour. A behaviour's bias is one for all of its user's candidates |
//! | the same with `enable_gqa=True` | [`TargetAttention::with_heads`](crate::TargetAttention::with_heads)`(heads, kv_heads)` |
//! | `nn.MultiheadAttention` | the same, between projections that stay with the model |
//! | `F.relu(q @ k.T) @ v`, `F.silu(q @ k.T) / n @ v` | [`Weighting`](crate::Weighting), with [`with_scale`](crate::TargetAttention::with_scale)`(1.0)` |
//! | log-sum-exp, as `torch.ops.aten._scaled_dot_product_flash_attention` returns it | [`TargetAttentionOutputs::with_lse`](crate::TargetAttentionOutputs::with_lse) |
//! | DIN's `LocalActivationUnit` (deepctr-torch), `DIN_Attention` (FuxiCTR) | [`Din`](crate::Din); weights of `nn.Linear` as they are, `[out, in]`; [`fold_dice`](crate::fold_dice) folds running statistics |
//! | `topk(q @ k.T)`, `topk(cosine_similarity)` | [`Search::dot`](crate::Search::dot), [`Search::cosine`](crate::Search::cosine) (which keeps no rows of zeros): scores stay on chip; up to 4096 are kept |
//! | the smallest bit counts of `codes_q ^ codes_k` | [`Search::hamming`](crate::Search::hamming), whose scores are the numbers of equal bits, largest first |
//! | `gather` of what a `topk` kept, and attention over it | [`SelectedAttention`](crate::SelectedAttention) |
//! | `bucketize` of similarities from -1 to 1 in equal steps, and a sum of `one_hot` | [`SimilarityHistogram`](crate::SimilarityHistogram) |
//! | `nn.Embedding` | [`LookupOps::lookup`](crate::LookupOps::lookup) with [`Bags::Each`](crate::Bags::Each) |
//! | `nn.EmbeddingBag(mode="sum")`, `"mean"` | the same with [`Bags::Sum`](crate::Bags::Sum), [`Bags::Mean`](crate::Bags::Mean) |
//! | `per_sample_weights` | [`LookupInputs::with_weights`](crate::LookupInputs::with_weights), for sums |
//! | `padding_idx` | no padding; ids to leave out are `u32::MAX`, with [`IdPolicy::Skip`](crate::IdPolicy::Skip), which leaves out what is outside the table |
//! | FBGEMM's 8-bit tables, quantised by row | [`TableData::Int8`](crate::TableData::Int8), with scale and offset of each row in buffers of their own: `code - 128`, `scale`, `bias + 128·scale` |
//!
//! # Training
//!
//! | in PyTorch | here |
//! |---|---|
//! | `loss.backward()` | the `_backward_into` of each call that has a gradient; in a graph, the adapters: `longseq-candle` and `longseq-burn` |
//! | `sparse=True`: a gradient of the rows that were read | [`SparseGradient`](crate::SparseGradient) |
//! | `SparseAdam`, FBGEMM's `EXACT_ROWWISE_ADAGRAD`, `SGD` | [`Optimiser`](crate::Optimiser) and [`LookupOps::update_rows`](crate::LookupOps::update_rows) |
//! | `nn.BatchNorm1d` in training mode, as in Dice | [`DinOps::din_statistics_into`](crate::DinOps::din_statistics_into) |
//!
//! # One of them, side by side
//!
//! Two users with 1 and 3 behaviours, 1 and 2 candidates. In PyTorch, padded:
//!
//! ```text
//! q = torch.tensor([[[1., 0.], [0., 0.]], [[0., 0.], [0., 9.]]])            # [users, candidates, d]; the second row of user 0 is padding
//! k = torch.tensor([[[7., 7.], [0., 0.], [0., 0.]], [[3., 0.], [0., 3.], [0., 6.]]])
//! mask = torch.tensor([[True, False, False], [True, True, True]])           # what is no padding
//! F.scaled_dot_product_attention(q, k, k, attn_mask=mask[:, None, :], scale=1.0)
//! ```
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::{Cpu, Host, Jagged, TargetAttention, TargetAttentionInputs};
//!
//! let queries = [1.0_f32, 0.0, 0.0, 0.0, 0.0, 9.0]; // [3, 2]
//! let keys = [7.0_f32, 7.0, 3.0, 0.0, 0.0, 3.0, 0.0, 6.0]; // [4, 2]
//! let backend = Cpu::new();
//! let (histories, candidates) = (Jagged::new(&[0_i64, 1, 4], 4)?, Jagged::new(&[0_i64, 1, 3], 3)?);
//! let batch = backend.batch(&histories, &candidates)?;
//! let inputs = TargetAttentionInputs::new(Host::view(&queries), Host::view(&keys));
//! let out = backend.target_attention(&TargetAttention::new(2).with_scale(1.0), &batch, inputs)?;
//! for (got, expected) in out.iter().zip([7.0, 7.0, 1.0, 3.0, 0.0, 6.0]) {
//!     assert!((got - expected).abs() < 1e-6);
//! }
//! # Ok::<(), longseq::Error>(())
//! ```
//!
//! What differs: without behaviours the result is zeros; the same batch gives the same bits, in training, too; an id
//! outside a table is an error that names it, on a GPU at the next wait; longseq itself does not panic.
