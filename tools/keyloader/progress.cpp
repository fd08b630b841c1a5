// A progress bar on standard error. Called by publishing and import.
// Silent where nobody looks: in a pipe, in a log, in the first second.
#include "progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace keyloader {
namespace {

constexpr std::uint64_t kLookAtClockEvery = 256;
constexpr int kBarWidth = 40;

}  // namespace

Progress::Progress(std::string what, std::uint64_t total)
    : what_(std::move(what)),
      total_(total),
      is_terminal_(isatty(STDERR_FILENO) == 1),
      next_draw_(std::chrono::steady_clock::now() + std::chrono::seconds(1)) {}

Progress::~Progress() {
  if (is_drawn_) {
    fmt::print(stderr, "\r\033[K");
  }
}

void Progress::advance() {
  ++done_;
  if (!is_terminal_ || done_ % kLookAtClockEvery != 0) {
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (now >= next_draw_) {
    next_draw_ = now + std::chrono::milliseconds(100);
    draw();
  }
}

void Progress::draw() {
  is_drawn_ = true;
  if (total_ == 0) {
    fmt::print(stderr, "\r{} {}", what_, done_);
    return;
  }
  const std::uint64_t total = std::max(total_, done_);
  const auto filled = static_cast<std::size_t>(done_ * kBarWidth / total);
  const std::string bar = std::string(filled, '#') + std::string(kBarWidth - filled, '.');
  fmt::print(stderr, "\r{} [{}] {:3}% {}/{}", what_, bar, done_ * 100 / total, done_, total);
}

}  // namespace keyloader
