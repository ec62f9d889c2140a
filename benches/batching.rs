//! What continuous batching gives: answers of 8 to 96 tokens, so many in flight, once in batches that hold every place
//! until their longest answer ends, once in a batch that answers leave and prompts join at once, as clips do.
//!
//!     cargo bench --bench batching -- [FRAMES [IN_FLIGHT [REQUESTS]]]
//!
//! Random weights of the 256M shape, f32, on the CPU, with camscribe's own kernels. There are as many clients as answers
//! in flight; each asks again as soon as it has its answer. Both ways get the same requests and take turns.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon")]

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    time::{Duration, Instant},
};

use camscribe::{
    bench::shapes::Shape,
    describe::smolvlm::{config::ModelConfig, network::Network},
    device::{DeviceChoice, DtypeChoice},
    nn::{
        device::choose,
        error::Result,
        generate::{Completion, GenerationRequest, Group, NotFinite, Sequences, Then},
        observer::no_observer,
        sampler::{Choice, TokenSampling},
        weights::RandomNumbers,
    },
};

/// Turns of each way.
const ROUNDS: usize = 2;
/// The longest answer that counts as short, in tokens: a quarter of them are.
const SHORT: usize = 30;

/// How answers leave and prompts join.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Held,
    Continuous,
}

/// Clients that ask again as soon as they have an answer.
struct Clients<'a> {
    network: &'a Network,
    way: Way,
    frames: usize,
    in_flight: usize,
    /// Lengths of the answers to the requests that are still to come.
    lengths: VecDeque<usize>,
    /// When each client that waits for a place has asked, and the length of its answer.
    waiting: VecDeque<(Instant, usize)>,
    /// When each client that has a place has asked, and the length of its answer.
    running: BTreeMap<usize, (Instant, usize)>,
    given: usize,
    /// How long each client waited for its answer, and the length of that.
    latencies: Vec<(Duration, usize)>,
}

impl Clients<'_> {
    fn ask(&mut self) {
        self.waiting.extend(self.lengths.pop_front().map(|length| (Instant::now(), length)));
    }

    fn have_answer(&mut self, (asked, length): (Instant, usize)) {
        self.latencies.push((asked.elapsed(), length));
        self.ask();
    }
}

impl Sequences for Clients<'_> {
    fn join(&mut self, running: usize) -> Result<Group> {
        let none = Group { requests: Vec::new(), features: None };
        let most = match self.way {
            Way::Held if running > 0 => return Ok(none),
            Way::Held => {
                // The whole batch is handed out at its end.
                std::mem::take(&mut self.running).into_values().for_each(|asked| self.have_answer(asked));
                self.in_flight
            }
            Way::Continuous if running > 0 => 1.min(self.in_flight - running),
            Way::Continuous => self.in_flight,
        };
        let joining: Vec<_> = self.waiting.drain(..most.min(self.waiting.len())).collect();
        if joining.is_empty() {
            return Ok(none);
        }
        let tiles: Vec<u8> = (0..joining.len() * self.frames * self.network.tile_bytes())
            .map(|i| (i * 31 % 251) as u8)
            .collect();
        let features = self.network.encode(&tiles, &mut no_observer)?;
        let prompt = prompt(&self.network.config, self.frames);
        let request = |length: usize| GenerationRequest {
            ids: prompt.clone(),
            max_tokens: length,
            sampling: TokenSampling::GREEDY,
        };
        for asked in &joining {
            self.running.insert(self.given, *asked);
            self.given += 1;
        }
        Ok(Group { requests: joining.iter().map(|(_, length)| request(*length)).collect(), features })
    }

    fn is_cancelled(&self, _number: usize) -> bool {
        false
    }

    fn token(&mut self, _number: usize, _choice: &Choice) -> Then {
        Then::Continue
    }

    fn ended(&mut self, number: usize, completion: Result<Completion, NotFinite>) {
        completion.expect("the scores are numbers");
        if self.way == Way::Continuous {
            let asked = self.running.remove(&number).expect("it was asked");
            self.have_answer(asked);
        }
    }

    fn prefilled(&mut self, _numbers: Range<usize>, _time: Duration) {}

    fn stepped(&mut self, _numbers: &[usize], _time: Duration) {}
}

/// The tokens of a prompt about so many frames.
fn prompt(config: &ModelConfig, frames: usize) -> Vec<u32> {
    let mut ids = vec![5; 20];
    for _ in 0..frames {
        ids.extend([5; 13]);
        ids.extend(vec![config.image_token_id; config.tokens_per_tile()]);
    }
    ids.extend([5; 12]);
    ids
}

/// Answers per second, and the 50th and 95th percentile of the time that a client waits, in seconds: for any answer, and
/// for a short one.
fn measure(network: &Network, way: Way, (frames, in_flight, requests): (usize, usize, usize)) -> [f64; 5] {
    // The same for both ways: 8 to 96 tokens in a fixed, mixed order.
    let lengths = (0..requests).map(|i| 8 + (i * 37 + i * i * 11) % 89).collect();
    let mut clients = Clients {
        network,
        way,
        frames,
        in_flight,
        lengths,
        waiting: VecDeque::new(),
        running: BTreeMap::new(),
        given: 0,
        latencies: Vec::new(),
    };
    (0..in_flight).for_each(|_| clients.ask());
    let start = Instant::now();
    network.generate(&mut clients, &mut no_observer).expect("the device works");
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(clients.latencies.len(), requests);
    let quantile = |q: f64, longest: usize| {
        let short = clients.latencies.iter().filter(|(_, length)| *length <= longest);
        let mut latencies: Vec<f64> = short.map(|(latency, _)| latency.as_secs_f64()).collect();
        latencies.sort_by(f64::total_cmp);
        latencies[(latencies.len() as f64 * q).ceil() as usize - 1]
    };
    let any = usize::MAX;
    let rate = requests as f64 / seconds;
    [rate, quantile(0.5, any), quantile(0.95, any), quantile(0.5, SHORT), quantile(0.95, SHORT)]
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let number = |i: usize, usual| numbers.get(i).copied().unwrap_or(usual);
    let work = (number(0, 1), number(1, 16), number(2, 96));
    let target = choose(DeviceChoice::Cpu, DtypeChoice::F32).expect("there is a CPU");
    let network = Network::random(Shape::M256.config(), RandomNumbers { seed: 1, bf16: true }, target)
        .expect("the weights fit");
    println!("frames {}, in flight {}, requests {}", work.0, work.1, work.2);
    println!("way         answers/s   p50 s   p95 s   short: p50 s   p95 s");
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (i, (name, way)) in [("held", Way::Held), ("continuous", Way::Continuous)].into_iter().enumerate()
        {
            let measured = measure(&network, way, work);
            let [rate, p50, p95, short50, short95] = measured;
            println!("{name:<11} {rate:>9.3} {p50:>7.2} {p95:>7.2} {short50:>14.2} {short95:>7.2}");
            all[i].push(measured);
        }
    }
    let mean = |way: &[[f64; 5]], i: usize| way.iter().map(|it| it[i]).sum::<f64>() / way.len() as f64;
    let ratio = |i: usize| mean(&all[1], i) / mean(&all[0], i);
    println!(
        "continuous / held: answers/s {:.2}, p50 {:.2}, p95 {:.2}; short answers: p50 {:.2}, p95 {:.2}",
        ratio(0),
        ratio(1),
        ratio(2),
        ratio(3),
        ratio(4)
    );
}
