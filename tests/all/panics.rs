//! Panics of callers inside calls, in wakers and while work is under way, and things dropped on other threads: the device goes on for
//! everybody else.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use longseq::*;
use longseq_check::device::Kind;

/// A device of its own of each backend, since other tests use the shared ones meanwhile.
fn own_devices() -> Vec<AnyBackend> {
    let own = |kind: &Kind| {
        kind.device()?;
        Some(match kind {
            Kind::Cpu => Cpu::new().into(),
            #[cfg(feature = "wgpu")]
            Kind::Wgpu => {
                let options = longseq_check::device::webgpu::options();
                Wgpu::with_options(&options).expect("a second device of the same adapter").into()
            }
            #[cfg(feature = "cuda")]
            Kind::Cuda => Cuda::new(0).expect("a second handle").into(),
            #[cfg(not(all(feature = "cuda", feature = "wgpu")))]
            _ => return None,
        })
    };
    Kind::ALL.iter().filter_map(own).collect()
}

type Rows = Buffer<AnyBackend, f32>;

/// Behaviours, and attention of one candidate over them that is not waited for.
fn attend(gpu: &AnyBackend) -> Result<(Rows, Rows)> {
    let history = gpu.upload(&[1.0f32, 0.0, 0.0, 1.0])?;
    let batch = gpu.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
    let inputs = TargetAttentionInputs::new(gpu.view(&history).slice(0, 2)?, gpu.view(&history));
    let out = gpu.target_attention(&TargetAttention::new(2), &batch, inputs)?;
    Ok((history, out))
}

/// Whether it is what [`attend`] gives.
#[track_caller]
fn assert_right(got: Result<Vec<f32>>) {
    let got = got.expect("a download");
    assert!(got[0] > 0.66 && got[0] < 0.68 && (got[0] + got[1] - 1.0).abs() < 1e-6, "{got:?}");
}

#[track_caller]
fn assert_works(gpu: &AnyBackend) {
    let (_history, out) = attend(gpu).expect("a valid call");
    assert_right(gpu.download(gpu.view(&out)));
    gpu.synchronize().expect("nothing failed");
}

/// The one piece of a caller's code that is called inside a call decides which kernels to compile.
#[test]
fn a_panic_inside_a_call_leaves_every_device_usable() {
    for gpu in own_devices() {
        let is_compiled = !matches!(gpu, AnyBackend::Cpu(_));
        for nth in [0, 3] {
            let asked = AtomicUsize::new(0);
            let panics = |name: &str| match asked.fetch_add(1, Ordering::Relaxed) {
                at if at == nth => resume_unwind(Box::new("a panic inside a call")),
                _ => name.starts_with("merge"),
            };
            let caught = thread::scope(|threads| threads.spawn(|| gpu.warm_up(panics)).join().is_err());
            assert_eq!(caught, is_compiled, "{}", gpu.device());
            assert_works(&gpu);
        }
        let count = gpu.warm_up(|name| name.contains("lookup")).expect("kernels");
        assert_eq!(count > 0, is_compiled, "{}", gpu.device());
        assert_works(&gpu.fork().expect("another handle"));
    }
}

/// Makes a call, of which it notes the result, where it is dropped.
struct CallsInDrop<'a>(&'a AnyBackend, &'a AtomicUsize);

impl Drop for CallsInDrop<'_> {
    fn drop(&mut self) {
        assert_works(self.0);
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

/// Threads panic with work of theirs under way, and drop what it reads and writes; other threads are served meanwhile.
#[test]
fn threads_that_panic_leave_the_others_alone() {
    for gpu in own_devices() {
        let called = AtomicUsize::new(0);
        thread::scope(|threads| {
            let serve = || (0..10).for_each(|_| assert_works(&gpu.fork().expect("another handle")));
            let serving = [(); 2].map(|()| threads.spawn(serve));
            let panic = |shared: bool| {
                let own = if shared { gpu.clone() } else { gpu.fork().expect("another handle") };
                let _calls = CallsInDrop(&gpu, &called);
                let _held = attend(&own).expect("a valid call");
                resume_unwind(Box::new("a panic of the caller's"))
            };
            let panicking: Vec<_> = (0..8).map(|i| threads.spawn(move || panic(i % 2 == 0))).collect();
            let ended = panicking.into_iter().map(|thread| thread.join().map(|(): ()| ()));
            assert!(ended.into_iter().all(|ended| ended.is_err()));
            serving.into_iter().for_each(|thread| thread.join().expect("no panic"));
        });
        assert_eq!(called.into_inner(), 8, "calls of threads that unwind");
        assert_works(&gpu);
    }
}

/// A task whose executor is broken.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        resume_unwind(Box::new("a panic of a waker"));
    }
}

/// Polls until the future is ready, without being woken.
#[track_caller]
fn wait_for<F: Future>(future: F) -> F::Output {
    let (mut future, begun) = (pin!(future), Instant::now());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody waits any more");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_waker_that_panics_ends_no_other_wait() {
    for gpu in own_devices() {
        let waker = Waker::from(Arc::new(Panics));
        for _ in 0..5 {
            let (_history, out) = attend(&gpu).expect("a valid call");
            let mut doomed = pin!(gpu.download_async(gpu.view(&out)));
            let polled = doomed.as_mut().poll(&mut Context::from_waker(&waker));
            // Another wait, which is woken as it should, and one that blocks.
            assert_right(longseq_check::waits::block_on(gpu.download_async(gpu.view(&out))));
            let blocked = catch_unwind(AssertUnwindSafe(|| gpu.download(gpu.view(&out))));
            assert_right(blocked.expect("the panic of another's waker"));
            // The panic has taken nothing from the task itself.
            assert_right(match polled {
                Poll::Ready(got) => got,
                Poll::Pending => wait_for(doomed),
            });
        }
        assert_works(&gpu);
    }
}

/// Anything that can be dropped on another thread.
trait Held: Send {}

impl<T: Send> Held for T {}

fn drop_all(held: Receiver<Box<dyn Held>>) {
    held.into_iter().for_each(drop);
}

/// What belongs to calls under way is dropped by several threads at once, in every order, the last handle of a device among it.
#[test]
fn everything_may_be_dropped_on_other_threads() {
    for gpu in own_devices() {
        let lengths = |rows| Jagged::from_lengths(&[rows]).expect("a small length");
        let (senders, threads): (Vec<Sender<Box<dyn Held>>>, Vec<_>) = (0..3)
            .map(|_| {
                let (sender, receiver) = channel();
                (sender, thread::spawn(|| drop_all(receiver)))
            })
            .unzip();
        let (shared, shared_out) = attend(&gpu).expect("a valid call");
        for order in 0..120 {
            let fork = gpu.fork().expect("another handle");
            let bags = fork.jagged(&lengths(1)).expect("bags");
            let ids = fork.upload(&[order % 4]).expect("memory");
            let (history, out) = attend(&fork).expect("a valid call");
            let tables = [Table::new(4, 1, TableData::F32(fork.view(&history)))];
            let inputs = LookupInputs::new(fork.view(&ids), &tables);
            let (row, _) = fork.lookup(&Lookup::default(), Bags::Sum(&bags), inputs).expect("a valid call");
            let mut left: Vec<Box<dyn Held>> = vec![Box::new(fork), Box::new(history), Box::new(bags)];
            left.extend([Box::new(out) as Box<dyn Held>, Box::new(row)]);
            let mut digits = order as usize;
            while !left.is_empty() {
                let dropped = left.swap_remove(digits % left.len());
                senders[digits % senders.len()].send(dropped).expect("a thread that drops");
                digits /= left.len() + 1;
            }
        }
        assert_right(gpu.download(gpu.view(&shared_out)));
        gpu.synchronize().expect("nothing failed");
        // The device itself: its last handle, with work under way, and what that work reads and writes.
        let (history, out) = attend(&gpu).expect("a valid call");
        let last: [Box<dyn Held>; 5] =
            [Box::new(out), Box::new(gpu), Box::new(shared), Box::new(history), Box::new(shared_out)];
        for (held, sender) in last.into_iter().zip(senders.iter().cycle()) {
            sender.send(held).expect("a thread that drops");
        }
        drop(senders);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    }
}
