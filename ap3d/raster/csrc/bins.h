// The lists of splats of each tile of one view, nearest first, ties by index.
#pragma once
#include "buffer.h"
#include "parallel.h"
#include "splats.h"

struct Bins {
    Buffer<int32_t> offsets;      // [tiles + 1] a tile's part of items
    Buffer<TileItem> items;
    Buffer<int32_t> first_slots;  // [N + 1] a Gaussian's moments, one for each tile of its box in order of rows

    // Every member of the team calls this with all the views' boxes; the lists do not depend on the team's size.
    static void fill(ap3d::Team &team, Bins *bins, const ap3d_box *boxes, int views, int count, int columns, int tiles);

    size_t bytes() const {
        return offsets.bytes() + items.bytes() + first_slots.bytes() + keys_.bytes() + sorted_.bytes() + starts_.bytes();
    }

  private:
    struct Key {
        uint32_t depth;
        int32_t gaussian;
    };
    Buffer<Key> keys_, sorted_;
    Buffer<int32_t> starts_;  // counts of each chunk, then where it writes
    int seen_ = 0;

    void choose(const ap3d_box *boxes, int count);
    void count_digits(int chunk, int chunks, int shift);
    void scatter_digits(int chunk, int chunks, int shift);
    void count_tiles(const ap3d_box *boxes, int chunk, int chunks, int columns, int tiles);
    void place_tiles(int chunks, int tiles);
    void scatter_tiles(const ap3d_box *boxes, int chunk, int chunks, int columns, int tiles);
};
