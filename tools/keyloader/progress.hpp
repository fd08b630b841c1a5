// A progress bar on standard error, for people: only on a terminal, only for work that lasts over a second.
// Called by publishing and import.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace keyloader {

class Progress {
 public:
  Progress(std::string what, std::uint64_t total);  // 0: nobody knows how much there is; then only a count is shown
  ~Progress();                                      // clears the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance();

 private:
  void draw();

  std::string what_;
  std::uint64_t total_;
  std::uint64_t done_ = 0;
  bool is_terminal_;
  bool is_drawn_ = false;
  std::chrono::steady_clock::time_point next_draw_;
};

}  // namespace keyloader
