// nginx's side of collecting, spoken to over its unix socket: `apikey_usage` (docs/usage.md has the protocol).
// Used by usage_collect.cpp. Everything nginx sends is checked before it is believed.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "registry/registry.hpp"
#include "usage_counts.hpp"

namespace keyloader {

// Nobody answers at the socket, or it is not there.
class NotAnswering : public Failure {
 public:
  using Failure::Failure;
};

// A part of nginx's table, and what it says of itself at that moment.
struct UsagePage {
  UsageInstance instance{};
  Seconds created = 0;
  Seconds now = 0;
  Seconds acknowledged_to = 0;  // hours that end by then have been collected by somebody
  std::uint64_t unplaced = 0;
  std::vector<std::pair<Seconds, Seconds>> gaps{};
  std::vector<UsageRecord> rows{};
  std::optional<std::uint64_t> next{};  // where the next part begins
};

// One nginx's counts, whichever way they are reached.
class UsageReader {
 public:
  UsageReader() = default;
  UsageReader(const UsageReader&) = delete;
  UsageReader& operator=(const UsageReader&) = delete;
  virtual ~UsageReader() = default;

  // What does not change when that nginx begins anew: its socket, or its file.
  [[nodiscard]] virtual const std::string& place() const = 0;
  [[nodiscard]] virtual std::string name() const = 0;  // for people
  [[nodiscard]] virtual UsagePage read(std::uint64_t from) = 0;
  // Hours that end by then may be forgotten. RETURNS: empty, or why nginx does not want to: its sentence.
  [[nodiscard]] virtual std::string acknowledge(const UsageInstance& instance, Seconds to) = 0;
};

class UsageClient final : public UsageReader {
 public:
  explicit UsageClient(const std::string& socket);

  [[nodiscard]] const std::string& place() const override { return socket_; }
  [[nodiscard]] std::string name() const override { return socket_; }
  [[nodiscard]] UsagePage read(std::uint64_t from) override;
  [[nodiscard]] std::string acknowledge(const UsageInstance& instance, Seconds to) override;

 private:
  struct Answer {
    long status = 0;
    std::string body;
  };
  [[nodiscard]] Answer ask(const std::string& query, bool is_post);

  struct Close {
    void operator()(void* handle) const;
  };
  std::string socket_;
  std::unique_ptr<void, Close> handle_;
};

}  // namespace keyloader
