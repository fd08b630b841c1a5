// Collecting: nginx's absolute counts into usage.db, and only then the word that they may be forgotten.
// Called by usage.cpp. Must never acknowledge an hour before all its rows are committed and on the disk.
#include "usage_collect.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "usage_client.hpp"
#include "usage_memory.hpp"

namespace keyloader {
namespace {

constexpr int kAttempts = 5;

std::string node_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? std::string{name.data()} : std::string{"localhost"};
}

// Hours that end by then are complete as of the moment `now` in nginx.
Seconds complete_to(const UsagePage& page) {
  return (page.now - apikey::kUsageSettling) / apikey::kUsageHour * apikey::kUsageHour;
}

// What the first part says of times before this collection.
void put_head(UsageStore& store, const UsagePage& page, const std::string& place) {
  const auto known = store.source(page.instance);
  if (!known) {
    if (const auto before = store.source_at(place)) {
      store.put(UsageGap{.instance = before->instance,
                         .kind = "replaced",
                         .from = before->collected,
                         .to = std::max(page.created, before->collected + 1)});
    }
  }
  const Seconds ours = known ? known->complete_to : page.created;
  if (page.acknowledged_to > ours) {
    store.put(UsageGap{.instance = page.instance, .kind = "elsewhere", .from = ours, .to = page.acknowledged_to});
  }
  for (const auto& [from, to] : page.gaps) {
    store.put(UsageGap{.instance = page.instance, .kind = "restored", .from = from, .to = to});
  }
  store.put(UsageSource{.instance = page.instance,
                        .node = node_name(),
                        .socket = place,
                        .created = page.created,
                        .unplaced = page.unplaced});
}

void put_rows(UsageStore& store, const UsagePage& page) {
  for (const UsageRecord& row : page.rows) {
    store.put(row);
  }
}

// RETURNS: false when nginx has begun anew, or somebody else has collected, while we were reading.
bool read_all(UsageStore& store, UsageReader& nginx, Collected& collected) {
  const UsagePage first = nginx.read(0);
  collected = {.from = nginx.name(),
               .place = nginx.place(),
               .instance = first.instance,
               .rows = first.rows.size(),
               .complete_to = complete_to(first),
               .acknowledged_to = first.acknowledged_to};
  {
    Transaction transaction(store.database(), Transaction::Kind::write);
    put_head(store, first, nginx.place());
    put_rows(store, first);
    transaction.commit();
  }
  for (auto next = first.next; next;) {
    const UsagePage page = nginx.read(*next);
    if (page.instance != first.instance || page.acknowledged_to != first.acknowledged_to) {
      return false;
    }
    Transaction transaction(store.database(), Transaction::Kind::write);
    put_rows(store, page);
    transaction.commit();
    collected.rows += page.rows.size();
    next = page.next;
  }
  Transaction transaction(store.database(), Transaction::Kind::write);
  store.put(UsageSource{.instance = first.instance,
                        .node = node_name(),
                        .created = first.created,
                        .collected = first.now,
                        .complete_to = collected.complete_to});
  transaction.commit();
  return true;
}

Collected collect_from(UsageStore& store, UsageReader& nginx) {
  std::string refusal = "nginx's counts changed hands while they were read";
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    Collected collected;
    if (!read_all(store, nginx, collected)) {
      continue;
    }
    if (collected.acknowledged_to >= collected.complete_to) {
      return collected;
    }
    refusal = nginx.acknowledge(collected.instance, collected.complete_to);
    if (refusal.empty()) {
      return collected;
    }
  }
  throw Failure(fmt::format("what {} has counted is stored, but it did not forget what is complete: {}. Collect again",
                            nginx.name(), refusal));
}

Collected collect_over(UsageStore& store, const std::filesystem::path& socket) {
  UsageClient client(std::filesystem::absolute(socket).string());
  return collect_from(store, client);
}

}  // namespace

std::optional<Collected> collect_usage(const Session& session, const Nodes& nodes, const Node& node) {
  const std::vector<const Node*> found = nodes_with_usage(nodes);
  if (std::find(found.begin(), found.end(), &node) == found.end()) {
    return std::nullopt;
  }
  UsageStore store(session.dir());
  UsageMemory memory(node);
  return collect_from(store, memory);
}

std::vector<Collected> collect_usage(const Session& session, UsageStore& store, const std::string& socket) {
  if (!socket.empty()) {
    return {collect_over(store, socket)};
  }
  const std::filesystem::path usual = session.dir().usage_socket();
  const bool has_socket = std::filesystem::exists(usual);
  const Nodes nodes(session.dir(), session.runtime);
  const std::vector<const Node*> found = nodes_with_usage(nodes);
  // A user who may not write the inbox cannot ask nginx to forget; over a socket he can.
  if (has_socket &&
      std::any_of(found.begin(), found.end(), [](const Node* node) { return !UsageMemory(*node).may_acknowledge(); })) {
    return {collect_over(store, usual)};
  }
  std::vector<Collected> all;
  bool is_any_live = false;
  for (const Node* const node : found) {
    UsageMemory memory(*node);
    all.push_back(collect_from(store, memory));
    is_any_live = is_any_live || node->is_live();
  }
  if (all.empty() || (has_socket && !is_any_live)) {
    try {
      all.push_back(collect_over(store, usual));
    } catch (const NotAnswering& failure) {
      if (all.empty()) {
        throw NotAnswering(
            fmt::format("no nginx here is known to read {}, and {}", nodes.snapshot().string(), failure.what()));
      }
    }
  }
  return all;
}

}  // namespace keyloader
