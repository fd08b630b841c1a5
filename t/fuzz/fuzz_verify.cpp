// The whole verification under a seal that holds: a hostile builder's file. What passes is opened and looked up in by
// index and by liblmdb, which must agree; nothing may crash.
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "apikey/snapshot.hpp"
#include "broken_snapshot.hpp"

namespace {

using apikey::Lookup;
using apikey::Snapshot;

void look_up(const fixture::Bytes& bytes) {
  const int fd = ::memfd_create("fuzz", MFD_CLOEXEC);
  require(fd >= 0 && ::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  Snapshot by_index;
  Snapshot by_btree;
  require(by_index.open(fd, bytes, Lookup::index).ok());
  require(by_btree.open(fd, bytes, Lookup::btree).ok());
  for (const auto& [digest, written] : good_snapshot().keys) {
    apikey::Record record;
    const Snapshot::Find found = by_index.find(digest, record);
    require(found != Snapshot::Find::damaged && found == by_btree.find(digest, record));
    if (found == Snapshot::Find::absent) continue;
    apikey::OwnerRow owner;
    apikey::PlanRow plan;
    apikey::ScopeSet scopes;
    std::string_view text;
    require(by_index.owner(record.owner, owner) && by_index.plan(record.plan, plan));
    require(by_index.scopes(record.scopes, scopes) && by_index.string(record.env, text));
    require(by_index.string(owner.name, text) && by_index.string(record.name, text));
  }
  apikey::ScopeSet known;
  require(by_index.known_scopes(known));
  (void)::close(fd);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzInput input(data, size);
  if (input.byte() == 0) {
    (void)fixture::verify(input.remaining_bytes());
    return 0;
  }
  fixture::Bytes bytes = good_snapshot().bytes;
  edit(input, bytes);
  fixture::reseal(bytes);
  if (fixture::verify(bytes).ok()) look_up(bytes);
  return 0;
}
