// Collecting: nginx's absolute counts into usage.db, and only then the word that they may be forgotten.
// Called by usage.cpp. Must never acknowledge an hour before all its rows are committed and on the disk.
#include "usage_collect.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "usage_client.hpp"

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
void put_head(UsageStore& store, const UsagePage& page, const std::string& socket) {
  const auto known = store.source(page.instance);
  if (!known) {
    if (const auto before = store.source_at(socket)) {
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
                        .socket = socket,
                        .created = page.created,
                        .unplaced = page.unplaced});
}

void put_rows(UsageStore& store, const UsagePage& page) {
  for (const UsageRecord& row : page.rows) {
    store.put(row);
  }
}

// RETURNS: false when nginx has begun anew, or somebody else has collected, while we were reading.
bool read_all(UsageStore& store, UsageClient& client, const std::string& socket, Collected& collected) {
  const UsagePage first = client.read(0);
  collected = {.instance = first.instance,
               .rows = first.rows.size(),
               .complete_to = complete_to(first),
               .acknowledged_to = first.acknowledged_to};
  {
    Transaction transaction(store.database(), Transaction::Kind::write);
    put_head(store, first, socket);
    put_rows(store, first);
    transaction.commit();
  }
  for (auto next = first.next; next;) {
    const UsagePage page = client.read(*next);
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

}  // namespace

Collected collect_usage(UsageStore& store, const std::string& socket) {
  UsageClient client(socket);
  std::string refusal = "nginx's counts changed hands while they were read";
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    Collected collected;
    if (!read_all(store, client, socket, collected)) {
      continue;
    }
    if (collected.acknowledged_to >= collected.complete_to) {
      return collected;
    }
    refusal = client.acknowledge(collected.instance, collected.complete_to);
    if (refusal.empty()) {
      return collected;
    }
  }
  throw Failure(fmt::format(
      "what nginx has counted is stored, but it did not forget what is complete: {}. Collect again", refusal));
}

}  // namespace keyloader
