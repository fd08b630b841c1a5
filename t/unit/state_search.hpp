// What searches through all interleavings have in common: states that are visited once, and workers that are functions
// of what they have read since their attempt began, so that one step re-runs an attempt and stops it after one access
// more. Included by tests only.
#pragma once

#include <array>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace apikey {

// 64 bits that stand for a state. Two states of ten million sharing theirs is a matter of one in 300,000, and would
// only leave out what follows from one of them.
class Fingerprint {
 public:
  void add(std::uint64_t value) {
    value_ = (value_ ^ value) * 0xff51afd7ed558ccd;
    value_ ^= value_ >> 32U;
  }
  [[nodiscard]] std::uint64_t value() const { return value_ | 1; }

 private:
  std::uint64_t value_ = 0x9e3779b97f4a7c15;
};

// Fingerprints seen so far: open addressing, at most half full.
class Seen {
 public:
  // RETURNS: false when it was there already.
  bool insert(std::uint64_t print) {
    if (2 * ++count_ > table_.size()) {
      grow();
    }
    const bool is_new = put(print);
    count_ -= is_new ? 0 : 1;
    return is_new;
  }
  [[nodiscard]] std::size_t size() const { return count_; }

 private:
  bool put(std::uint64_t print) {
    std::size_t at = (print >> 1U) & (table_.size() - 1);
    for (; table_[at] != 0; at = (at + 1) & (table_.size() - 1)) {
      if (table_[at] == print) {
        return false;
      }
    }
    table_[at] = print;
    return true;
  }
  void grow() {
    std::vector<std::uint64_t> old(2 * table_.size());
    old.swap(table_);
    for (const std::uint64_t print : old) {
      if (print != 0) {
        put(print);
      }
    }
  }

  std::vector<std::uint64_t> table_ = std::vector<std::uint64_t>(1U << 12U);
  std::size_t count_ = 0;
};

// What an attempt has read so far, in order.
struct Trace {
  std::uint8_t count = 0;
  std::array<std::uint64_t, 40> reads{};
};

// One step of an attempt: old reads are repeated, one new access is made, the next one pauses.
class Stepper {
 public:
  Stepper(Trace& trace, std::jmp_buf& pause) : trace_(trace), pause_(pause) {}

  template <class Function>
  std::uint64_t access(Function function) {
    if (position_ < trace_.count) {
      return trace_.reads[position_++];
    }
    if (has_stepped_) {
      // Nothing on this stack has a destructor, and an exception costs ten times as much, millions of times.
      std::longjmp(pause_, 1);  // NOLINT(cert-err52-cpp)
    }
    has_stepped_ = true;
    return remember(function());
  }
  // Not a step: a value that is chosen once.
  template <class Function>
  std::uint64_t choose(Function function) {
    return position_ < trace_.count ? trace_.reads[position_++] : remember(function());
  }
  [[nodiscard]] std::size_t position() const { return position_; }

 private:
  std::uint64_t remember(std::uint64_t value) {
    if (trace_.count == trace_.reads.size()) {
      std::abort();  // an attempt that never ends
    }
    ++position_;
    return trace_.reads[trace_.count++] = value;
  }

  Trace& trace_;
  std::jmp_buf& pause_;
  std::size_t position_ = 0;
  bool has_stepped_ = false;
};

// Visits all states that can be reached from `start`. print(state): its fingerprint. expand(state, visit): calls visit
// for each that may follow. RETURNS: how many there are; the search ends early when expand returns false.
template <class State, class Print, class Expand>
std::size_t search_states(const State& start, Print print, Expand expand) {
  Seen seen;
  std::vector<State> open{start};
  seen.insert(print(start));
  const auto visit = [&](const State& next) {
    if (seen.insert(print(next))) {
      open.push_back(next);
    }
  };
  while (!open.empty()) {
    const State state = open.back();
    open.pop_back();
    if (!expand(state, visit)) {
      break;
    }
  }
  return seen.size();
}

}  // namespace apikey
